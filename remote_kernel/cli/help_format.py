"""What `--help` of a command looks like: arguments by the one word that stands for them, and options in groups."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

_REST = "Options"


class GroupedHelpCommand(TyperCommand):
    """A command whose help typer's rich mode would group too, without what typer adds of types.

    An option's `rich_help_panel` names its group; the groups come in the order of their first options.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line."""
        return ["[OPTIONS]", *(shown(one) for one in self.params if one.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options by groups."""
        arguments, groups = [], dict[str, list[tuple[str, str]]]()
        for one in self.get_params(ctx):
            if one.param_type_name == "argument":
                arguments.append((shown(one), getattr(one, "help", "") or ""))
            elif record := one.get_help_record(ctx):
                groups.setdefault(getattr(one, "rich_help_panel", None) or _REST, []).append(record)
        groups[_REST] = groups.pop(_REST)  # --help is one of them
        for title, rows in {"Arguments": arguments, **groups}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def shown(argument: Any) -> str:
    """Return an argument as the usage has it, in brackets if it may be left out."""
    text = str(argument.metavar)
    return text if argument.required or text.startswith("[") else f"[{text}]"
