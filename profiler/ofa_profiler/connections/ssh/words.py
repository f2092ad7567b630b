"""Lines of ssh_config, split as OpenSSH splits them: keyword, ``=``, quotes, escapes, comments."""

SPACE = " \t\r\n"


def split_keyword(line: str) -> tuple[str, str]:
    """Return the keyword in lower case, and the rest of the line; an empty keyword for a blank line or a comment.

    Raises ValueError for quotes that do not end.
    """
    line = line[:1] + line[1:].rstrip(SPACE + "\f")
    keyword, rest = next_token(line)
    if keyword == "":
        keyword, rest = next_token(rest)
    if not keyword or keyword.startswith("#"):
        return "", ""
    return keyword.lower(), rest.lstrip(SPACE)


def next_token(text: str) -> tuple[str, str]:
    """Cut the first token off: it ends at a blank, at a quoted part or at one ``=``. Raises ValueError."""
    end = next((index for index, character in enumerate(text) if character in SPACE + '"='), len(text))
    if end == len(text):
        return text, ""
    if text[end] == '"':
        inside, quote, rest = text[end + 1 :].partition('"')
        if not quote:
            raise ValueError("a quote does not end")
        return text[:end] + inside, rest.lstrip(SPACE)
    rest = text[end + 1 :].lstrip(SPACE)
    if text[end] != "=" and rest.startswith("="):
        rest = rest[1:].lstrip(SPACE)
    return text[:end], rest


def split_words(text: str) -> list[str]:
    """Split the arguments of a keyword; a ``#`` at the start of a word begins a comment. Raises ValueError."""
    words: list[str] = []
    index = 0
    while index < len(text):
        if text[index] in " \t":
            index += 1
        elif text[index] == "#":
            break
        else:
            word, index = _word(text, index)
            words.append(word)
    return words


def quote(word: str) -> str:
    """Quote a word so that OpenSSH reads it back unchanged."""
    if word and not set(word) & set(" \t\"'\\#="):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _word(text: str, index: int) -> tuple[str, int]:
    word, quote = "", ""
    while index < len(text):
        character = text[index]
        following = text[index + 1 : index + 2]
        if character == "\\" and (following in ("'", '"', "\\") or (following == " " and not quote)):
            word += following
            index += 1
        elif not quote and character in " \t":
            break
        elif not quote and character in "\"'":
            quote = character
        elif quote and character == quote:
            quote = ""
        else:
            word += character
        index += 1
    if quote:
        raise ValueError("a quote does not end")
    return word, index
