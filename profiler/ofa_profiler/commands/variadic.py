"""Options that take several values at once."""

from typing import Any

import click


class Variadic(click.Command):
    """Command that also accepts several values after a ``multiple`` number option: ``--limit 15 20 25``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {
            flag
            for param in self.params
            if isinstance(param, click.Option) and param.multiple and isinstance(param.type, click.types.FloatParamType)
            for flag in param.opts
        }
        spread: list[str] = []
        flag: Any = None
        for word in args:
            if flag is not None and _is_number(word):
                spread += [word] if spread[-1] == flag else [flag, word]
                continue
            flag = word if word in flags else None
            spread.append(word)
        return super().parse_args(ctx, spread)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
