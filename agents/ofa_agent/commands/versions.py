"""Find out which command templates work on a device, and the versions of their tools."""

import re
from typing import Any, Dict, Iterable

from ofa_agent.commands.output import last_line
from ofa_agent.commands.permission import Permission
from ofa_agent.commands.programs import find_program
from ofa_agent.commands.template import PREFIX, InvalidTemplate, Template, parse_text

VERSION_TIMEOUT_S = 60.0


class Missing(Exception):
    """The tool of a template does not work on this device; the message says why."""


class Versions:
    """The versions of the tools, which are asked for once. ``shell`` runs commands on the device."""

    def __init__(self, shell: Any, permission: Permission) -> None:
        self._shell = shell
        self._permission = permission
        self._known: Dict[str, str] = {}

    def describe(self, texts: Iterable[str], description: Any) -> None:
        """Add the runtimes of these templates to a Description message, or the reasons why they are missing."""
        for text in texts:
            try:
                template = parse_text(text)
            except InvalidTemplate as error:
                description.missing_runtimes[PREFIX + "?"] = str(error)
                continue
            runtime = PREFIX + template.name
            try:
                description.runtimes[runtime] = self._version(template)
            except Missing as reason:
                description.missing_runtimes[runtime] = str(reason)
                continue
            description.commands[runtime] = text
            description.profiling_runtimes.extend([runtime] if template.layers else [])

    def _version(self, template: Template) -> str:
        refusal = self._permission.refusal(template)
        if refusal:
            raise Missing(refusal)
        if template.text not in self._known:
            self._known[template.text] = "%s (template %s)" % (self._ask(template), template.digest)
        return self._known[template.text]

    def _ask(self, template: Template) -> str:
        version = template.version
        if version is None:
            if self._shell.run("which", self._found(template.run[0])).code == 1:
                raise Missing("%s does not exist on this device" % template.run[0])
            return "of unknown version"
        program, rest = self._found(version.run[0]), version.run[1:]
        ran = self._shell.run(program, *rest, timeout_s=VERSION_TIMEOUT_S)
        if ran.code in (124, 126, 127):
            raise Missing(last_line(ran.error or "%s does not run on this device" % version.run[0]))
        output = ran.output + "\n" + ran.error
        found = re.search(version.regex, output)
        if not found:
            printed = last_line(output)
            raise Missing(
                "%s printed no match of %r; its last line: %s" % (" ".join(version.run), version.regex, printed)
            )
        return found.group(1)

    def _found(self, program: str) -> str:
        return find_program(program) if self._shell.here else program
