"""Real programs, the ones that workers run, come to their end under the filter."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.support.clis import cli
from tests.support.filtered import run_program

PYTHON = {
    "subprocess": """
        import subprocess
        assert subprocess.run(["sh", "-c", "cat; exit 3"], input=b"x", capture_output=True).returncode == 3
        assert subprocess.run(["true"], start_new_session=True, close_fds=False).returncode == 0
    """,
    "threads": """
        from concurrent.futures import ThreadPoolExecutor
        import os
        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(lambda n: len(os.urandom(n)), range(200))) == 19900
    """,
    "asyncio": """
        import asyncio
        async def answer(reader, writer):
            writer.write(await reader.readline())
            writer.close()
        async def main():
            for start, connect, where in ((asyncio.start_server, asyncio.open_connection, ("127.0.0.1", 0)),
                                          (asyncio.start_unix_server, asyncio.open_unix_connection, ("socket",))):
                server = await start(answer, *where)
                name = server.sockets[0].getsockname()
                reader, writer = await (connect(name) if isinstance(name, str) else connect("localhost", name[1]))
                writer.write(b"hello\\n")
                assert await reader.readline() == b"hello\\n"
            process = await asyncio.create_subprocess_exec("true")
            assert await process.wait() == 0
            assert await asyncio.to_thread(lambda: 7) == 7
        asyncio.run(main())
    """,
    "multiprocessing": """
        import multiprocessing, operator
        from multiprocessing import shared_memory
        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                with context.Pool(2) as pool:
                    assert pool.starmap(operator.add, [(1, 2), (3, 4)]) == [3, 7]
                queue = context.Queue()
                queue.put(5)
                assert queue.get(timeout=30) == 5
            memory = shared_memory.SharedMemory(create=True, size=4096)
            memory.buf[0] = 1
            memory.close()
            memory.unlink()
    """,
    "terminals": """
        import os, pty
        child, terminal = pty.fork()
        if child == 0:
            os.execvp("sh", ["sh", "-c", "test -t 0 && stty size && tty"])
        text = b""
        try:
            while chunk := os.read(terminal, 1024):
                text += chunk
        except OSError:
            pass
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, text
    """,
    "files": """
        import mmap, os, shutil, sqlite3, tempfile
        with tempfile.TemporaryFile() as file:
            file.truncate(8192)
            mmap.mmap(file.fileno(), 8192)[0:2] = b"ab"
        os.makedirs("tree/deep")
        open("tree/deep/file", "w").write("text")
        os.symlink("deep", "tree/link")
        shutil.copytree("tree", "copy", symlinks=True)
        os.sendfile(os.open("out", os.O_CREAT | os.O_WRONLY), os.open("copy/deep/file", os.O_RDONLY), 0, 4)
        os.utime("out")
        shutil.rmtree("tree")
        database = sqlite3.connect("base.sqlite")
        database.execute("pragma journal_mode = wal")
        database.execute("create table t (x)")
        database.commit()
    """,
    "names and interfaces": """
        import socket
        assert socket.getaddrinfo("localhost", 80)
        assert socket.if_nameindex()
        left, right = socket.socketpair()
        left.send(b"x")
        assert right.recv(1) == b"x"
    """,
}

NODE = {
    "worker threads": """
        const { Worker } = require("worker_threads");
        const size = new Int32Array(new SharedArrayBuffer(4));
        const worker = new Worker("Atomics.add(require('worker_threads').workerData, 0, 7)", { eval: true, workerData: size });
        worker.on("exit", (code) => { if (code !== 0 || size[0] !== 7) throw new Error("worker"); });
    """,
    "child processes": """
        const { execFileSync, fork, spawnSync } = require("child_process");
        if (process.send) { process.send("hello"); process.disconnect(); return; }
        if (execFileSync("sh", ["-c", "echo a | tr a b"]).toString() !== "b\\n") throw new Error("exec");
        if (spawnSync("sh", ["-c", "exit 4"]).status !== 4) throw new Error("spawn");
        fork(__filename).on("message", (text) => { if (text !== "hello") throw new Error("fork"); });
    """,
    "network": """
        const http = require("http");
        if (!require("os").networkInterfaces()) throw new Error("interfaces");
        const server = http.createServer((request, response) => response.end("hello")).listen(0, "127.0.0.1", async () => {
            const text = await (await fetch(`http://localhost:${server.address().port}/`)).text().catch(() => "")
                || await (await fetch(`http://127.0.0.1:${server.address().port}/`)).text();
            if (text !== "hello") throw new Error("fetch");
            server.close();
        });
    """,
    "files, watching and cryptography": """
        const fs = require("fs"), crypto = require("crypto");
        const watcher = fs.watch(".", (event, name) => { if (name === "seen") watcher.close(); });
        fs.promises.mkdir("a/b", { recursive: true })
            .then(() => fs.promises.writeFile("a/b/c", "text"))
            .then(() => fs.promises.cp("a", "d", { recursive: true }))
            .then(() => fs.promises.rm("a", { recursive: true }))
            .then(() => fs.promises.writeFile("seen", ""));
        crypto.scrypt("password", "salt", 64, (error) => { if (error) throw error; });
    """,
    "compiled code": """
        let sum = 0;
        const add = (a, b) => a + b;
        for (let i = 0; i < 3e6; i++) sum = add(sum, i) % 1000003;
        const bytes = [0,97,115,109,1,0,0,0,1,7,1,96,2,127,127,1,127,3,2,1,0,7,7,1,3,97,100,100,0,0,10,9,1,7,0,32,0,32,1,106,11];
        const wasm = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(bytes)));
        if (wasm.exports.add(2, 3) !== 5) throw new Error("wasm");
    """,
}

SHELL = {
    "pipeline": """
        set -eu
        seq 1000 | sort -rn | head -3 | tee top | wc -l | grep -qx 3
        diff <(cat top) <(printf '1000\\n999\\n998\\n')
        (sleep 0.01; exit 3) & wait $! || test $? -eq 3
        cat <<< text | sed s/text/done/ > out && grep -q done out
        trap 'echo caught > trapped' USR1; kill -USR1 $$; test -s trapped
        find . -name top -print0 | xargs -0 -P 4 -n 1 ls -l
    """,
    "job control": """
        set -em
        sleep 30 & jobs -l; kill %1; wait %1 || test $? -eq 143
    """,
    "files": """
        set -eu
        mkdir -p a/b; echo text > a/b/file; mkfifo a/fifo; ln -s b a/link
        cp -a a copy; mv copy moved; chmod -R u=rwX,go=rX moved; chmod +t moved
        install -D -m 755 a/b/file bin/tool; touch -d yesterday bin/tool; truncate -s 1M sparse; sync sparse; sync
        tar czf a.tgz a; rm -rf a; tar xzf a.tgz; test -p a/fifo; cmp a/b/file moved/b/file
        (flock 9; df . > /dev/null; stat a > /dev/null; du -s .) 9> lock
        timeout 10 nice -n 5 ionice -c 3 taskset -c 0 setsid true
    """,
    "git": """
        set -eu
        git init -q work; cd work
        git config user.name somebody; git config user.email somebody@example.invalid
        for n in 1 2 3; do echo $n > file$n; git add file$n; git commit -qm "add $n"; done
        git gc -q; git fsck --no-progress; git stash list; git checkout -qb topic; git status --short
        cd ..; git clone -q work copy; git -C copy log --oneline | wc -l | grep -qx 3
        git -C work worktree add -q ../tree HEAD~1; test -s tree/file2
    """,
    "compiler and make": """
        set -eu
        printf '#include <stdio.h>\\n#include <pthread.h>\\nvoid *run(void *x) { return x; }\\n' > hello.c
        printf 'int main() { pthread_t t; pthread_create(&t, 0, run, 0); pthread_join(t, 0); puts("hello"); }\\n' >> hello.c
        printf 'hello: hello.c\\n\\tgcc -O2 -pthread -o hello hello.c\\nall: hello\\n\\t./hello | grep -qx hello\\n' > Makefile
        make -s -j4 all
    """,
}


def script(directory: Path, name: str, text: str) -> str:
    lines = text.strip("\n").splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    (directory / name).write_text("\n".join(line[margin:] for line in lines) + "\n")
    return name


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def must_succeed(argv: list[str], program: bytes, directory: Path, environment: dict[str, str] | None = None) -> str:
    done = run_program(argv, program, directory, environment)
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.mark.parametrize("name", PYTHON)
def test_python(name: str, program: bytes, tmp_path: Path) -> None:
    must_succeed([sys.executable, "-X", "dev", script(tmp_path, "work.py", PYTHON[name])], program, tmp_path)


@pytest.mark.parametrize("name", NODE)
def test_node(name: str, program: bytes, tmp_path: Path) -> None:
    must_succeed([need("node"), script(tmp_path, "work.js", NODE[name])], program, tmp_path)


@pytest.mark.parametrize("name", SHELL)
def test_shell(name: str, program: bytes, tmp_path: Path) -> None:
    must_succeed([need("bash"), script(tmp_path, "work.sh", SHELL[name])], program, tmp_path)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]], ids=" ".join)
@pytest.mark.parametrize("name", ["qwen", "gemini", "opencode"])
def test_agents(name: str, arguments: list[str], program: bytes, tmp_path: Path) -> None:
    assert must_succeed([cli(name), *arguments], program, tmp_path).strip() or arguments == ["--help"]
