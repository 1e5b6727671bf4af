"""Do what a session's clients ask for beside running cells: its state, an interrupt, a restart, a look at a name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from remote_kernel import __version__
from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.host.queue import Agenda
from remote_kernel.session.host.recording import Recording
from remote_kernel.session.host.variables import list_variables
from remote_kernel.session.paths import Place

_REST_SECONDS = 1.0  # for a short cell to end before the host leaves: nothing of that is missed then
_Fields = dict[str, Any]


class Requests:
    """What one session's host can do. `leave` is set when it has to end."""

    def __init__(self, place: Place, engine: Engine, agenda: Agenda, notebook: Recording) -> None:
        self.leave = asyncio.Event()
        self._place, self._engine, self._agenda, self._notebook = place, engine, agenda, notebook
        self._since = time.time()
        self._does: dict[str, Callable[[_Fields], Coroutine[Any, Any, object]]] = {
            "status": self._status,
            "restart": self._restart,
            "close": self._close,
            "leave": self._retire,
            "variables": self._variables,
            "inspect": self._inspect,
            "complete": self._complete,
            "run": self._run,
            "written": self._written,
        }

    async def answer(self, do: str, fields: _Fields, is_wanted: Callable[[], bool]) -> object:
        """Do it, and give what the client gets. Raises RemoteKernelError, UsageError for what is not known.

        `is_wanted` tells whether the client still waits: an interrupt is not repeated for one that has left.
        """
        if do == "interrupt":
            return await self._interrupt(fields, is_wanted)
        if do not in self._does:
            hint = f"'rkernel refresh {self._place.name}' replaces an older host; the kernel and its variables stay"
            raise UsageError(f"the host knows no request '{do}'", hint)
        return await self._does[do](fields)

    async def _status(self, fields: _Fields) -> object:
        life, engine = self._engine.life, self._engine
        presence = life.presence()
        is_away = presence is not None and not presence.connected
        if fields.get("memory") and not life.is_dead and not is_away:
            with contextlib.suppress(RemoteKernelError):
                usage = await engine.ask("usage_request", {}, channel="control", seconds=2.0)
                life.memory_bytes = int(usage.content.get("kernel_memory") or 0)
        record = life.record
        return {
            "session": self._place.name,
            "version": __version__,
            "kernelspec": record.kernelspec,
            "display_name": record.display_name,
            "language": str((life.info.get("language_info") or {}).get("name") or ""),
            "host": record.host,
            "folder": record.folder,
            "state": "unknown" if life.is_lost else "dead" if life.is_dead else "busy" if engine.is_busy else "idle",
            "connected": presence.connected if presence else None,
            "away_for": presence.reason if presence and is_away else "",
            "trouble": life.trouble,
            "generation": record.generation,
            "memory_bytes": life.memory_bytes,
            "running": _describe(self._agenda.running or next(iter(engine.foreign.cells), None)),
            "queued": [cell.number for cell in self._agenda.queue],
            "log": record.log,
            "log_trouble": self._notebook.trouble,
            "connection_file": record.connection_file,
            "since": self._since,
            "pid": os.getpid(),
            "attached": record.is_attached,
        }

    async def _interrupt(self, fields: _Fields, is_wanted: Callable[[], bool]) -> object:
        number = str(fields.get("cell") or "")
        agenda, engine = self._agenda, self._engine
        dropped = []
        for cell in list(agenda.queue):
            if cell.number == number or fields.get("all"):
                cell.interrupted = True
                agenda.take_out(cell, "aborted", "it was taken out of the queue")
                dropped.append(cell.number)
        if number and dropped:
            return {"stopped": True, "dropped": dropped}
        target = agenda.cells.get(number) if number else agenda.running
        if target and engine.take_back(target):
            return {"stopped": True, "dropped": [*dropped, target.number]}
        if number and target is None:
            agenda.past.check(number)
            return {"stopped": True, "dropped": [], "ended": True}
        if target is None and not engine.is_busy:
            return {"stopped": True, "dropped": dropped, "idle": True}
        if target:
            agenda.take_out_rest(target)
        what = _describe(target or next(iter(engine.foreign.cells), None))
        return {"stopped": await engine.interrupt(target, is_wanted), "dropped": dropped, "interrupted": what}

    async def _restart(self, _: _Fields) -> object:
        life = self._engine.life
        if life.record.is_attached:
            raise UsageError("this kernel was started elsewhere", "restart it there")
        for cell in list(self._agenda.queue):
            self._agenda.take_out(cell, "lost", "it never ran: the kernel was restarted")
        killed = await life.restart()
        return {"generation": life.record.generation, "killed": killed}

    async def _close(self, _: _Fields) -> object:
        cells = list(self._agenda.cells.values())
        for cell in cells:
            cell.lost_because = "the session was closed"
        killed = await self._engine.life.end()
        for cell in cells:
            cell.finish("lost")
        is_complete = await asyncio.get_running_loop().run_in_executor(None, self._notebook.close)
        self.leave.set()
        return {"log_trouble": "" if is_complete else self._notebook.trouble or "it took too long", "killed": killed}

    async def _retire(self, _: _Fields) -> object:
        self._agenda.pause()
        await self._engine.rest(_REST_SECONDS)
        self._engine.life.release()
        self.leave.set()
        return {}

    async def _variables(self, fields: _Fields) -> object:
        return await list_variables(self._engine, str(fields.get("pattern") or ""))

    async def _run(self, fields: _Fields) -> object:
        return {"cells": self._agenda.take_run(fields), "generation": self._engine.life.record.generation}

    async def _written(self, fields: _Fields) -> object:
        return await self._agenda.copies.written(str(fields["cell"]))

    async def _inspect(self, fields: _Fields) -> object:
        name = str(fields["name"])
        content = {"code": name, "cursor_pos": len(name), "detail_level": int(fields.get("detail") or 0)}
        return await self._engine.ask_beside("inspect_request", content)

    async def _complete(self, fields: _Fields) -> object:
        code = str(fields["code"])
        at = int(fields.get("at", len(code)))
        return await self._engine.ask_beside("complete_request", {"code": code, "cursor_pos": at})


def _describe(cell: Cell | None) -> object:
    if cell is None:
        return None
    return {"cell": cell.number, "code": cell.code[:200], "author": cell.author, "since": cell.started_at}
