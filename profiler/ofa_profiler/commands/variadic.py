"""Options that take several values at once."""

from typing import Any

import click


class Variadic(click.Command):
    """Command that also accepts several values after a ``multiple`` option of numbers or paths: ``--limit 15 20 25``.

    The values after the first must be numbers, or for paths not begin with a dash.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {
            flag: param.type
            for param in self.params
            if isinstance(param, click.Option) and param.multiple
            for flag in param.opts
            if isinstance(param.type, click.types.FloatParamType | click.Path)
        }
        spread: list[str] = []
        flag: Any = None
        for word in args:
            if flag is not None and (spread[-1] == flag or _continues(word, flags[flag])):
                spread += [word] if spread[-1] == flag else [flag, word]
                continue
            flag = word if word in flags else None
            spread.append(word)
        return super().parse_args(ctx, spread)


def _continues(word: str, kind: click.ParamType) -> bool:
    """Whether a word is one more value."""
    if isinstance(kind, click.Path):
        return not word.startswith("-")
    try:
        float(word)
    except ValueError:
        return False
    return True
