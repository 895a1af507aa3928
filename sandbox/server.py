"""The fork server: a small process with one thread that makes sandboxes, waits for their ends and clears up after them.

It is a program of its own, so that a fork is cheap whatever the size of its client, and so that the sandboxes have a parent that
outlives the client: within a grace, a successor may come in by the door (rendezvous.py) and take them over. It does not mount:
its children do, each in a mount namespace that clone3 made for it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import selectors
import socket
import sys
import time
import traceback
from typing import NamedTuple

import msgspec

from sandbox import disk, idmap, limits, linux, notify, plan, protocol, seccomp, tier, tier_enter
from sandbox.cgroup import Cgroups
from sandbox.child import SETUP_TIMEOUT_S, Child
from sandbox.enter import PARKED, READY, Beginning, Entry, Failure, Supervise, enter, order
from sandbox.errors import SandboxError
from sandbox.parking import Parking
from sandbox.root import GO, Owners, Shift
from sandbox.shield import Shielded
from sandbox.spec import SandboxSpec, check, ids

NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
_decoder = msgspec.msgpack.Decoder(Failure | Owners | Supervise)


class Settings(NamedTuple):
    """The server's arguments."""

    control: int
    """The client's socket; -1: the first client comes in by the door."""
    door: int
    """A listening socket; -1: no successor can come."""
    cgroup_name: str
    orphan_grace_s: float
    """Infinite: the server waits for a client until it is killed."""
    parked: int = 0
    """How many sandboxes wait to be ordered."""


class Server:
    """The loop of the process."""

    def __init__(self, door: socket.socket | None, settings: Settings) -> None:
        self._control: socket.socket | None = None
        self._door = door
        self._grace_s = settings.orphan_grace_s
        self._host = plan.Host.look()
        self._common = plan.common(self._host)
        seccomp.compile_elsewhere()  # now, while nobody waits for it
        self._root = os.geteuid() == 0
        self.tier: tier.Tier | None = None
        """What takes the place of namespaces, where the host forbids them to this user."""
        if not self._root:
            if why := tier.why_no_namespaces():
                self.tier = tier.Tier(why)
            else:
                idmap.own_namespace()
        if self.tier is None:
            linux.drop_bounding_set()
        self._cgroups = Cgroups.detect(settings.cgroup_name)
        self._cgroups.sweep()
        self._cgroups.sweep_abandoned()
        self._born_in_group = self._cgroups.backend == "v2"
        self._not_held = {name: how for name, how in self._cgroups.layers().items() if how != self._cgroups.backend}
        """The resources that no cgroup limits here, each with the reason."""
        self._children: dict[int, Child] = {}
        self._parking = Parking(self._host, 0 if self.tier else settings.parked)
        self._supervised: set[Child] = set()
        """Those whose supervisor runs, be they at an end themselves or not."""
        self._disks = disk.Disks()
        self._last_group = 0
        self._last_id = 0
        self._untold: list[tuple[bytes, protocol.Exited]] = []
        """How labelled sandboxes ended while there was no client."""
        self._stop_at: float | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._parking.mounts, selectors.EVENT_READ, self._clear_parking)
        if door is not None:
            self._selector.register(door, selectors.EVENT_READ, self._on_knock)

    def run(self, control: socket.socket | None) -> None:
        """Serve this client, or the first that comes, until one has said Stop, or is gone and the grace is over."""
        if control is not None:
            self._take(control)
        while not self._done():
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._enforce_deadlines()
            self._park()
        self._disks.close()
        self._cgroups.close()

    def _done(self) -> bool:
        if self._stop_at is None or self._children or self._supervised:
            return False
        return self._door is None or not self._untold

    def _patience(self) -> float | None:
        deadlines = [child.deadline for child in self._children.values() if child.deadline < math.inf]
        deadlines += [moment for moment in (self._stop_at, self._park_at) if moment is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        stopping = self._stop_at is not None and now >= self._stop_at
        if stopping:
            self._shut_door()
        for child in self._children.values():
            if child.running and now >= child.deadline:
                child.timed_out, child.deadline = True, math.inf
                child.kill()
            elif stopping or (not child.running and now >= child.deadline):
                child.failure = child.failure or Failure(f"not built within {SETUP_TIMEOUT_S:.0f} s.", "build", 0)
                child.kill()
        if stopping:
            self._stop_at = now + 1.0
        elif self._stop_at is not None and not any(child.ordered for child in self._children.values()):
            self._clear_parking()

    # Clients

    def _on_knock(self) -> None:
        """A successor, which the one before has made way for, even where its end has not been noticed yet."""
        if self._door is None:
            return
        try:
            control, _ = self._door.accept()
        except OSError:  # it has gone again
            return
        self._lose_client()
        self._stop_at = None
        self._take(control)

    def _take(self, control: socket.socket) -> None:
        """Serve this client, beginning with what there is."""
        self._control = control
        self._selector.register(control, selectors.EVENT_READ, lambda: self._on_request(control))
        running = [child for child in self._children.values() if child.running and child.label]
        ended, self._untold = self._untold, []
        found = len(running) + len(ended)
        layers = self._cgroups.layers()
        self._send(protocol.Started(self._cgroups.backend, layers, last_id=self._last_id, found=found, without=self.without))
        for label, exited in ended:
            self._send(protocol.Found(exited.id, 0, label, 0))
            self._send(exited)
        for child in running:
            descriptors = [child.pidfd, *child.kept, *child.listeners]
            self._send(protocol.Found(child.id, child.number, child.label, len(child.kept), child.watch is not None), descriptors)

    def _lose_client(self) -> None:
        """What it has not labelled, or has not seen running, is nobody's now."""
        if self._control is None:
            return
        self._selector.unregister(self._control)
        self._control.close()
        self._control = None
        if self._door is not None:
            for child in self._children.values():
                if child.ordered and not (child.label and child.running):
                    child.abandoned = True
                    child.kill()

    def _shut_door(self) -> None:
        self._parking.close()
        if self._door is not None:
            self._selector.unregister(self._door)
            self._door.close()
            self._door = None

    def _client_gone(self) -> None:
        self._lose_client()
        if self._grace_s < math.inf:
            self._stop_at = time.monotonic() + self._grace_s

    # Requests

    def _on_request(self, control: socket.socket) -> None:
        """Whatever is wrong with a request or its sandbox ends neither this server nor the other sandboxes."""
        if control is not self._control:  # another has taken its place in this very round
            return
        try:
            received = protocol.receive_request(control)
        except protocol.Misunderstood as error:
            self._refuse(error.id, Failure(f"{error}.", "spec", 0))
            return
        if received is None:
            self._client_gone()
            return
        request, descriptors = received
        self._parking.touch()
        if isinstance(request, protocol.Renew):
            self._disks.again(request.id)
            return
        if isinstance(request, protocol.Stop):
            self._stop_at = time.monotonic()
            self._shut_door()
            self._selector.unregister(control)
            return
        try:
            self._spawn(request, descriptors)
        except SandboxError as error:
            self._refuse(request.id, Failure.of(error))
        except OSError as error:
            self._refuse(
                request.id, Failure(f"{error.filename or 'the fork server'}: {error.strerror}.", "spawn", error.errno or 0)
            )
        except Exception as error:
            traceback.print_exc()
            self._refuse(request.id, Failure(f"{type(error).__name__}: {error}", "spawn", 0))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _spawn(self, request: protocol.Spawn, descriptors: list[int]) -> None:
        self._last_id = max(self._last_id, request.id)
        if len(descriptors) != len(request.numbers) + request.kept:
            raise SandboxError("its descriptors got lost: too many files are open here.", step="spawn", errno=errno.EMFILE)
        self._kill_outdated()
        # Where none is parked, one begins while its order is written.
        child = None if self._parking.any() else self._clone(plan.BARE if self.tier else self._common)
        kept: list[int] = []
        try:
            entry, held = self._entry(request), limits.held(request.spec, self._not_held)
            watch = notify.Watch.of(request.spec, entry.plan, self._filter(request.spec))
            child = self._fitting(entry.plan, child)
            if self.tier:
                self.tier.began(child.pid, entry.private)
            if child.group:
                self._cgroups.limit(child.group, **held)
            kept.extend(map(os.dup, descriptors[len(request.numbers) :]))
            self._count(child, request, entry)
            order(child.status, entry, descriptors[: len(request.numbers)])
        except BaseException:
            self._disks.forget(request.id)
            if child:
                child.kill()
            for descriptor in kept:
                os.close(descriptor)
            raise
        child.order(request, (entry.uid, entry.gid), kept, watch)
        if child.oom >= 0:
            self._selector.register(child.oom, selectors.EVENT_READ, lambda: self._on_oom(child))

    def _count(self, child: Child, request: protocol.Spawn, entry: Entry) -> None:
        """Have what it adds to disks counted, if that is limited."""
        has_init = request.spec.init or self.tier is not None
        wanted = disk.wanted(request.id, request.spec, entry.private, child.number, trusted=has_init)
        if wanted and self._disks.begin(wanted):
            self._selector.register(self._disks, selectors.EVENT_READ, self._on_counted)

    def _on_counted(self) -> None:
        passed = self._disks.read()
        if passed is None:
            self._selector.unregister(self._disks)
            passed = self._disks.lose()
        for child in self._children.values():
            if child.id in passed:
                child.disk_limit_hit = True
                child.kill()

    def _entry(self, request: protocol.Spawn) -> Entry:
        spec = request.spec
        check(spec)
        uid, gid = ids(spec)
        planned = plan.make(spec, self._host, uid, gid)
        filtered = notify.program_for(self._filter(spec), spec.supervise)
        private = ""
        if self.tier:
            tier.check(spec, planned, self.tier.why)
            private = self.tier.make_private()
            spec = tier.translated(spec, planned, private)
        return Entry(
            spec=spec,
            plan=planned,
            uid=uid,
            gid=gid,
            change_ids=self._root,
            filter=filtered,
            numbers=request.numbers,
            # Only where the user is the sandbox's own: a person's other processes would count too.
            rlimit_pids=spec.pids if self._root and "pids" in self._not_held else 0,
            private=private,
            tier_filter=self.tier.filter if self.tier else b"",
        )

    def _filter(self, spec: SandboxSpec) -> bytes:
        return seccomp.compile_elsewhere(frozenset(spec.allow_syscalls), frozenset(spec.deny_syscalls))

    @property
    def without(self) -> str:
        """Why sandboxes here have no namespaces; empty: they have."""
        return str(self.tier.why) if self.tier else ""

    def _fitting(self, planned: plan.Plan, begun: Child | None) -> Child:
        """A child that can become this: the one that was begun, a parked one, or a new one."""
        child = begun or self._parking.take(planned)
        if child and plan.has(planned, child.made):
            return child
        if child:
            child.kill()
        return self._clone(self._common if plan.has(planned, self._common) else plan.BARE)

    def _clone(self, made: plan.Plan) -> Child:
        """A child that makes this part of its root."""
        group = None
        if self._cgroups.backend != "none":
            self._last_group += 1
            group = self._cgroups.create(f"sandbox-{self._last_group}")
        ours, theirs = protocol.pair()
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, protocol.MAX_ORDER_BYTES)
            flags = 0 if self.tier else NAMESPACES
            pid, pidfd = linux.clone(flags, group.directory_fd() if group and self._born_in_group else -1)
            if pid == 0:
                way = tier_enter.way if self.tier else None
                enter(Beginning(made, theirs, None if self._born_in_group else group, way))
        except BaseException:
            ours.close()
            if group:
                group.remove()
            raise
        finally:
            theirs.close()
        child = Child(pid, pidfd, group, ours, made)
        self._children[pid] = child
        self._watch(child)
        return child

    def _watch(self, child: Child) -> None:
        self._selector.register(child.status, selectors.EVENT_READ, lambda: self._on_status(child))
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._on_exit(child))

    # Parking

    @property
    def _park_at(self) -> float | None:
        """When to make one more: not for nobody."""
        return self._parking.due if self._stop_at is None else None

    def _park(self) -> None:
        """Make one more, if it is time."""
        if self._park_at is None or time.monotonic() < self._park_at:
            return
        try:
            self._parking.put(self._clone(self._common))
        except (SandboxError, OSError) as error:
            print(f"sandbox: none is made beforehand: {error}", file=sys.stderr)  # noqa: T201
            self._parking.rest()

    def _clear_parking(self) -> None:
        for child in self._parking.clear():
            child.kill()

    def _kill_outdated(self) -> None:
        for child in self._parking.outdated():
            child.kill()

    # What children say

    def _on_status(self, child: Child) -> None:
        if child.status.fileno() < 0:
            return
        if child.ordered:
            self._parking.touch()
        packet, descriptors = protocol.receive_packet(child.status, 65_536)
        if packet == PARKED:
            if not child.ordered:
                child.park()
            child.number  # noqa: B018
        elif packet == READY:
            child.ready, child.listeners = True, descriptors
        elif packet:
            self._on_said(child, _decoder.decode(packet), descriptors)
        else:
            self._on_status_closed(child)

    def _on_said(self, child: Child, said: Failure | Owners | Supervise, descriptors: list[int]) -> None:
        match said:
            case Owners():
                self._shift(child, said.owners)
            case Supervise():
                self._supervise(child, said.shielded, descriptors)
            case Failure():
                child.failure = child.failure or said

    def _shift(self, child: Child, owners: tuple[Shift, ...]) -> None:
        """Give a child the user namespaces that it asks for. It has looked at the owners itself: a dead disk hangs it alone."""
        users: list[int] = []
        try:
            users.extend(idmap.namespace((uid, gid), child.worker, root=root) for uid, gid, root in owners)
            socket.send_fds(child.status, [GO], users)
        except SandboxError as error:
            child.fail(error)
        except OSError:
            child.kill()
        finally:
            for descriptor in users:
                os.close(descriptor)

    def _supervise(self, child: Child, shielded: tuple[Shielded, ...], descriptors: list[int]) -> None:
        try:
            child.supervise(shielded, descriptors, born_in_group=self._born_in_group)
        except SandboxError as error:
            child.fail(error)
            return
        self._supervised.add(child)
        self._selector.register(child.supervisor, selectors.EVENT_READ, lambda: self._on_supervisor_end(child))

    def _on_supervisor_end(self, child: Child) -> None:
        os.waitid(os.P_PIDFD, child.supervisor, os.WEXITED)
        self._selector.unregister(child.supervisor)
        os.close(child.supervisor)
        self._supervised.discard(child)
        if child.ended:
            self._clear_up(child)

    def _on_status_closed(self, child: Child) -> None:
        """The exec has closed it, or a death, whose failure the exit will tell."""
        self._selector.unregister(child.status)
        child.status.close()
        if child.failure is None and child.ready and not child.abandoned:
            child.start()
            self._send(protocol.Spawned(child.id, child.number, child.watch is not None), [child.pidfd, *child.listeners])
        if not (child.running and child.label):
            child.forget_descriptors()

    def _on_oom(self, child: Child) -> None:
        if child.pid in self._children:
            self._selector.unregister(child.oom)
            child.oom = -1
            child.kill()

    def _on_exit(self, child: Child) -> None:
        while child.status.fileno() >= 0:  # whatever it still had to say comes first
            self._on_status(child)
        ended = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        assert ended is not None
        if child.ordered:
            self._parking.touch()
        self._selector.unregister(child.pidfd)
        if child.oom >= 0:
            self._selector.unregister(child.oom)
        os.close(child.pidfd)
        child.forget_descriptors()
        self._disks.forget(child.id)
        del self._children[child.pid]
        if self.tier:
            self.tier.ended(child.pid, {*self._children, self._disks.pid})
        self._tell_of_end(child, ended)
        child.ended = True
        if child not in self._supervised:
            self._clear_up(child)

    def _tell_of_end(self, child: Child, ended: os.waitid_result) -> None:
        if not child.ordered:
            if child.failure and self._stop_at is None:
                print(f"sandbox: none is made beforehand: {child.failure.step}: {child.failure.message}", file=sys.stderr)  # noqa: T201
            self._parking.lose(child)
        elif child.abandoned:
            pass
        elif child.running and self._control is None and child.label:
            self._untold.append((child.label, child.exited(ended)))
        elif child.running:
            self._send(child.exited(ended))
        else:
            self._refuse(child.id, child.failure or Failure("it was killed while it was built.", "build", 0))

    def _clear_up(self, child: Child) -> None:
        for error in self._cgroups.bury(child.group) if child.group else ():
            print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201

    def _refuse(self, id: int, failure: Failure) -> None:
        self._send(protocol.Refused(id, failure.message, failure.step, failure.errno, failure.hint))

    def _send(self, message: protocol.Message, descriptors: list[int] | None = None) -> None:
        if self._control is None:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [protocol.encode(message)], descriptors or [])
