"""Scripts for the ``sh`` of a device. Variable parts are read from standard input, never inserted."""

FACTS = r'printf "%s\n" "$HOME" "$(id -u)" "$(uname -m)"'
# Other users can write to /var/tmp: what is found there is used only if it belongs to this user, and nobody else could
# have changed it.
OURS = """
ours() {
[ ! -L "$1" ] || { echo "$1 is a link" >&2; return 1; }
[ "$(stat -c %u "$1")" = "$(id -u)" ] || { echo "$1 belongs to another user" >&2; return 1; }
case $(stat -c %A "$1") in ?????w*|????????w*) echo "$1 can be written by other users" >&2; return 1;; esac
}
"""
IS_THERE = (
    OURS
    + """
IFS= read -r folder; IFS= read -r name; IFS= read -r hash
[ -d "$folder" ] && ours "$folder" && [ -f "$folder/$name" ] && ours "$folder/$name" || exit 1
[ "$(sha256sum "$folder/$name" | cut -c 1-64)" = "$hash" ]
"""
)
PUT = (
    OURS
    + """
IFS= read -r folder; IFS= read -r name; umask 077
[ -e "$folder" ] || mkdir -p "${folder%/*}" && { [ -e "$folder" ] || mkdir -m 700 "$folder"; } || exit 1
ours "$folder" || exit 1
rm -f "$folder/$name.part"
cat > "$folder/$name.part" && mv "$folder/$name.part" "$folder/$name" || { rm -f "$folder/$name.part"; exit 1; }
"""
)
PROBE = """
IFS= read -r zip; IFS= read -r packages; IFS= read -r named
export PYTHONPATH="$packages"
if [ -n "$named" ]; then set -- "$named"
else set -- python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 python3.7 python3.6 python3 \
"$HOME/miniforge3/bin/python3" "$HOME/miniconda3/bin/python3" /opt/conda/bin/python3
fi
for python; do
command -v "$python" >/dev/null 2>&1 || continue
"$python" "$zip" probe 2>&1 </dev/null | tail -n 1
done
"""
START = """
IFS= read -r python; IFS= read -r zip; IFS= read -r packages
export PYTHONPATH="$packages"
exec "$python" "$zip" serve --json --token-stdin --detach --linger 45 --allow-commands
"""
END = 'IFS= read -r python; IFS= read -r zip; exec "$python" "$zip" end'
REMOVE = OURS + 'IFS= read -r folder; [ -d "$folder" ] && ours "$folder" 2>/dev/null || exit 3; rm -rf "$folder"'
