"""`rkernel skill`: show, install or remove the instructions for coding agents."""

from __future__ import annotations

import argparse
import sys

from remote_kernel.cli.rkernel.command import Subcommand

EXAMPLES = """\
examples:
  rkernel skill show
  rkernel skill install                        # for Claude Code: ~/.claude/skills/rkernel/SKILL.md
  rkernel skill install --for codex            # ~/.agents/skills/rkernel/SKILL.md
  rkernel skill install --for .claude/skills   # for one project
  rkernel skill show --agents-md >> AGENTS.md
  rkernel skill uninstall --for codex
"""


def add_skill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `skill`."""
    parser.description = "Show or install SKILL.md, which teaches a coding agent to use rkernel."
    parser.epilog = EXAMPLES
    parser.add_argument(
        "action",
        choices=["show", "install", "uninstall"],
        help="print it, write it to where an agent looks, or remove it there",
    )
    parser.add_argument(
        "--for",
        dest="where",
        metavar="AGENT",
        default="claude",
        help="'claude', 'codex', or the path of a folder of skills (default: claude)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace or remove also a file that somebody else wrote or changed"
    )
    parser.add_argument("--agents-md", action="store_true", help="show the paragraph for a project's AGENTS.md instead")


def skill(options: argparse.Namespace) -> int:
    """Run the command."""
    from remote_kernel.session.skill import install, skill_text, stanza_text, uninstall

    if options.action == "show":
        sys.stdout.write(stanza_text() if options.agents_md else skill_text())
        return 0
    done = (install if options.action == "install" else uninstall)(options.where, force=options.force)
    sys.stdout.write(f"{done.change} {done.path}\n")
    return 0


COMMANDS = {"skill": Subcommand(add_skill, skill)}
