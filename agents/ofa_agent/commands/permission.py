"""Which commands of a host an agent runs. Its owner decides when the agent starts."""

from typing import Iterable, List, Optional

from ofa_agent.commands.template import InvalidTemplate, Template, parse_text


class Permission:
    """``programs``: the programs that may run, as templates name them; None: all programs."""

    def __init__(self, programs: Optional[Iterable[str]] = ()) -> None:
        self._programs = None if programs is None else frozenset(programs)

    def refusal(self, template: Template) -> str:
        """Return the reason why this agent does not run a template; empty if it does."""
        if self._programs is None:
            return ""
        refused = [program for program in template.programs if program not in self._programs]
        if not refused:
            return ""
        flags = " ".join("--allow-command %s" % program for program in refused)
        return "this agent may not run %s; its owner can start it with %s" % (", ".join(refused), flags)

    def refusal_of_jobs(self, jobs: Iterable[object]) -> str:
        """Return the reason why the command of one of these Job messages may not run; empty if all may."""
        reasons: List[str] = []
        for job in jobs:
            text = job.settings.command  # type: ignore[attr-defined]
            try:
                reasons += [self.refusal(parse_text(text))] if text else []
            except InvalidTemplate as error:
                reasons.append(str(error))
        return next(filter(None, reasons), "")


EVERY = Permission(None)
NO_COMMAND = Permission()
