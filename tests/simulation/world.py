"""One history: a disk, daemons one after the other, their workers and clients, and what goes wrong, all drawn from one seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from random import Random
from signal import SIGTERM, SIGUSR1
from typing import Any

from supervisord_agents.core import invariants
from supervisord_agents.errors import DiskFull, JournalCorrupt, SupervisorError
from tests.simulation.clients import Client, Subscriber
from tests.simulation.daemon import Daemon
from tests.simulation.disk import Directory, Disk
from tests.simulation.loop import START_S, Crash, Loop, current_thread
from tests.simulation.machine import Machine
from tests.simulation.witness import Violation, Witness, unended

DISK_BYTES = 512 * 1024
FAULTS_S = 30.0
"""How long things go wrong, at most."""
PATIENCE_S = 900.0
"""Everything has ended so long after the last fault, or never will."""


class World:
    """`say` keeps the history if `record`."""

    def __init__(self, seed: int, *, record: bool = False) -> None:
        self.seed = seed
        self.history: list[str] = []
        self.violation: str = ""
        self._record = record
        self.loop = Loop(self._unhandled)
        self.context = copy_context()
        self.witness = Witness()
        self._dice = self._stream("world")
        self.disk = Disk(self.loop, self._stream("disk"), DISK_BYTES, self.violated)
        self.disk.change((self.disk.root, "state", Directory()))
        self.disk.sync_everything()
        self.machine = Machine(self, self._stream("workers"))
        self.daemon: Daemon | None = None
        self.daemons: list[Daemon] = []
        self.faulty = True
        self.over = False
        self._crashes_left = self._dice.choice((0, 1, 2, 3, 4, 6))
        self._clients = [Client(self, number, self._stream(f"client {number}"), self._dice.randint(3, 12)) for number in range(3)]
        self._clients_done = 0
        self._wall_set_back = 0.0
        self.space_is_short = False
        self._short_until = 0.0

    def _stream(self, name: str) -> Random:
        return Random(f"{self.seed} {name}")

    # What others call

    def say(self, who: str, what: str) -> None:
        if self._record:
            thread = " (thread)" if current_thread() is not None else ""
            self.history.append(f"{self.loop.now - START_S:10.4f}  {who:12}  {what}{thread}")

    def violated(self, what: str) -> None:
        """The first violation ends the history."""
        if not self.violation:
            self.violation = what
            self.say("VIOLATION", what)

    def wall(self) -> float:
        """The wall clock, which somebody may set back."""
        return self.loop.now - self._wall_set_back

    def refused_for_space(self, error: DiskFull) -> None:
        self.say("client", f"refused: {error.message}")
        if not self.space_is_short and self.loop.now > self._short_until + 60.0:
            self.violated(f"new work is refused for want of room, and there has been room for a minute: {error}")

    def disconnect(self, daemon: Daemon) -> None:
        """Its clients lose their connections."""
        callbacks, daemon.on_end = daemon.on_end, []
        for callback in callbacks:
            callback()

    # Lives of the daemon

    def _boot(self) -> None:
        if self.over or self.violation:
            return
        epoch = f"e{len(self.daemons)}"
        daemon = self.daemon = Daemon(self, epoch, self._stream(epoch))
        self.daemons.append(daemon)
        if self.faulty and self._dice.random() < 0.3:
            self._wall_set_back = self._dice.choice((0.0, 3600.0, -100.0))
        self._plan_end(daemon)
        self.say("world", f"daemon {epoch} starts")
        task = self.loop.create_task(daemon.main(), context=daemon.context)
        task.add_done_callback(lambda task: self._ended(daemon, task), context=self.context)

    def _plan_end(self, daemon: Daemon) -> None:
        dice = self._dice
        if not self.faulty or self._crashes_left == 0:
            return
        self._crashes_left -= 1
        daemon.power = dice.random() < 0.5
        how = dice.random()
        if how < 0.4:
            daemon.operations_left = int(2 + dice.random() ** 2 * 300)
        elif how < 0.6:
            daemon.steps_left = int(2 + dice.random() ** 2 * 3000)
        elif how < 0.8:
            self._after(dice.random() ** 2 * 15.0, self._struck, daemon)
        else:
            self._after(dice.random() * 10.0, self._tell_to_stop, daemon)
            if dice.random() < 0.5:
                daemon.operations_left = int(2 + dice.random() ** 2 * 300)

    def _tell_to_stop(self, daemon: Daemon) -> None:
        number = SIGTERM if not self.faulty or self._dice.random() < 0.5 else SIGUSR1
        if daemon.alive and number in daemon.signals:
            self.say("world", f"daemon {daemon.epoch} is told to stop, by {number.name}")
            daemon.context.copy().run(daemon.signals[number])

    def crash_in_a_call(self, daemon: Daemon) -> None:
        """The process does not come back from here."""
        self.crashed(daemon)
        thread = current_thread()
        if thread is not None:
            thread.block()
        raise Crash

    def _struck(self, daemon: Daemon) -> None:
        """By what was planned while there were faults."""
        if self.faulty:
            self.crashed(daemon)

    def crashed(self, daemon: Daemon) -> None:
        """It is killed, or the power goes."""
        if not daemon.alive:
            return
        self.say("world", f"daemon {daemon.epoch} {'loses power' if daemon.power else 'is killed'}")
        self._gone(daemon, power=daemon.power)

    def _ended(self, daemon: Daemon, task: asyncio.Task[None]) -> None:
        error = task.exception() if not task.cancelled() else None
        if isinstance(error, Violation | JournalCorrupt):
            self.violated(str(error))
        elif error is not None and not isinstance(error, SupervisorError | Crash):
            self._unhandled(error)
        if daemon.alive:
            self.say("world", f"daemon {daemon.epoch} has ended{f': {error}' if error else ''}")
            self._gone(daemon, power=False)

    def _gone(self, daemon: Daemon, *, power: bool) -> None:
        daemon.alive = False
        self.loop.bury()
        self.disk.forget_process()
        self.machine.orphaned(power=power)
        if power:
            self.disk.lose_power()
        self.context.copy().run(self.disconnect, daemon)
        if not self.over:
            self._after(0.05 + self._dice.random() ** 3 * 3.0, self._boot)

    def _after(self, seconds: float, callback: Callable[..., object], *arguments: Any) -> None:
        self.loop.call_later(seconds, callback, *arguments, context=self.context)

    # Weather

    def _weather(self) -> None:
        """What the disk does for the next while."""
        if not self.faulty:
            return
        dice, disk = self._dice, self.disk
        disk.faults.none()
        how = dice.random()
        if how < 0.15:
            disk.faults.sync_fails = dice.choice((0.01, 0.1))
        elif how < 0.3:
            disk.faults.stalls = 0.05
        elif how < 0.5 and not self.space_is_short:
            self._short_of_space(True)
        elif self.space_is_short:
            self._short_of_space(False)
        self._after(1.0 + dice.random() * 6.0, self._weather)

    def _short_of_space(self, short: bool) -> None:
        disk = self.disk
        self._short_until = self.loop.now
        self.space_is_short = short
        disk.foreign = max(0, disk.total - disk.used - self._dice.choice((0, 500, 3000, 6000))) if short else 0
        self.say("world", f"{disk.free} bytes are free")

    def _calm(self) -> None:
        """Nothing goes wrong any more."""
        self.say("world", "no more faults")
        self.faulty = False
        self.disk.faults.none()
        if self.space_is_short:
            self._short_of_space(False)
        self.machine.calm = True
        if self.daemon is not None:
            self.daemon.operations_left = self.daemon.steps_left = None

    def _look(self) -> None:
        """The invariants, now and then."""
        daemon = self.daemon
        if daemon is not None and daemon.alive and daemon.scheduler is not None:
            invariants.check(daemon.scheduler)
        self._after(3.0, self._look)

    # From beginning to end

    def run(self) -> None:
        """The whole history. `violation` tells what went wrong."""
        try:
            self.context.run(self._begin)
            self._until(lambda: self._clients_done == len(self._clients) and not self.faulty, "the clients come to an end")
            self.context.run(self._last_client)
            self._until(lambda: self._clients_done == len(self._clients), "a last submit is taken")
            self._until(self._all_ended, "every task ends")
            self.context.run(self._tell_to_stop, self.daemon)
            self.over = True
            self._until(lambda: self.daemon is not None and not self.daemon.alive, "the daemon stops")
            if not self.violation and self.daemon is not None and not self.daemon.clean_end:
                self.violated("without faults the daemon did not end in order")
            self.over = False
            self.context.run(self._boot)
            self._until(lambda: self.daemon is not None and self.daemon.handlers is not None, "the daemon starts once more")
            if not self.violation and self.daemon is not None:
                self.daemon.check_results()
        except Violation as violation:
            self.violated(str(violation))
        except Exception as error:
            self._unhandled(error)
        finally:
            self._end()

    def _begin(self) -> None:
        for client in self._clients:
            task = self.loop.create_task(client.run())
            task.add_done_callback(self._client_done)
        for number in range(2):
            subscriber = Subscriber(self, number, self._stream(f"subscriber {number}"))
            self.loop.create_task(subscriber.run()).add_done_callback(self.check_task)
        self._boot()
        self._weather()
        self._after(3.0, self._look)
        self._after(5.0 + self._dice.random() * FAULTS_S, self._calm)

    def _last_client(self) -> None:
        self._clients.append(Client(self, 9, self._stream("last client"), 1))
        self.loop.create_task(self._clients[-1].run()).add_done_callback(self._client_done)

    def _client_done(self, task: asyncio.Task[None]) -> None:
        self._clients_done += 1
        self.check_task(task)

    def check_task(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._unhandled(task.exception())

    def _all_ended(self) -> bool:
        daemon = self.daemon
        return daemon is not None and daemon.alive and daemon.handlers is not None and not unended(daemon.scheduler)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Let time pass until that is so."""
        deadline = self.loop.now + PATIENCE_S
        self.loop.run(lambda: bool(self.violation) or self.loop.now > deadline or condition())
        if not self.violation and not condition():
            daemon = self.daemon
            open_tasks = unended(daemon.scheduler) if daemon is not None and daemon.scheduler is not None else []
            raise Violation(f"in vain waited for: {what}. {open_tasks[:5]}")

    def _unhandled(self, error: BaseException | None) -> None:
        if isinstance(error, Violation | invariants.InvariantBroken):
            self.violated(str(error))
        elif error is not None:
            trace, last = error.__traceback__, ""
            while trace is not None:
                last, trace = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", trace.tb_next
            self.violated(f"unexpected {type(error).__name__}: {error} at {last}")

    def _end(self) -> None:
        self.over = True
        for daemon in self.daemons:
            daemon.alive = False
        for daemon in self.daemons:
            for thread in daemon.threads:
                thread.end()
        self.loop.close()
