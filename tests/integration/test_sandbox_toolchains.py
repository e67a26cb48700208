"""What people build with works under the filter of system calls and the limits of a sandbox."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.sandbox_runner.sandbox import MIB, Limits
from tests.integration.sandbox_kit import Open, bench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

ROOMY = Limits(memory=2048 * MIB, disk=1024 * MIB, pids=512, cpus=2.0, seconds=900)
C = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static void *work(void *given) { *(int *)given = 42; return 0; }
int main(void) {
    int answer = 0; pthread_t thread; char *copy = strdup("leak");
    pthread_create(&thread, 0, work, &answer); pthread_join(thread, 0);
    if (fork() == 0) _exit(answer == 42 ? 7 : 1);
    int status; wait(&status);
    printf("%d %d %s\n", answer, WEXITSTATUS(status), copy);
    free(copy); return 0;
}
"""
NODE = """
const {Worker, isMainThread, parentPort} = require('worker_threads');
const test = require('node:test'); const http = require('http'); const os = require('os');
const {execFileSync} = require('child_process');
if (!isMainThread) { parentPort.postMessage(42); } else {
  test('workers', () => new Promise(done => new Worker(__filename).once('message', m => { if (m === 42) done(); })));
  test('loopback', () => new Promise(done => {
    const server = http.createServer((_, answer) => answer.end('hello')).listen(0, '127.0.0.1', () =>
      http.get({host: '127.0.0.1', port: server.address().port, agent: false}, r => r.on('data', d => { server.close(); if (`${d}` === 'hello') done(); })));
  }));
  test('children and interfaces', () => {
    if (`${execFileSync('uname')}`.trim() !== 'Linux') throw Error();
    if (Object.keys(os.networkInterfaces()).some(name => name !== 'lo')) throw Error();
  });
}
"""
PYTHON = """
import asyncio, concurrent.futures, multiprocessing, os, pty, socket, sqlite3, subprocess, sys, tempfile, threading

def square(x): return x * x
def test_processes():
    with concurrent.futures.ProcessPoolExecutor(2) as pool: assert list(pool.map(square, [1, 2])) == [1, 4]
def test_locks():
    lock = multiprocessing.Lock()
    with lock: pass
def test_sqlite():
    with tempfile.NamedTemporaryFile() as f: sqlite3.connect(f.name).execute("create table t (x)")
def test_terminal():
    pid, fd = pty.fork()
    if pid == 0: os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
def test_sockets():
    with socket.create_server(("127.0.0.1", 0)) as s, socket.create_connection(s.getsockname()): pass
    with socket.create_server(("::1", 0), family=socket.AF_INET6): pass
    a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
def test_subprocess():
    async def go():
        p = await asyncio.create_subprocess_exec("true"); return await p.wait()
    assert asyncio.run(go()) == 0
def test_fifo(tmp_path):
    os.mkfifo(tmp_path / "f")
"""
GO = """
package main
import ("net"; "os/exec"; "runtime"; "sync"; "testing")
func TestAll(t *testing.T) {
	var group sync.WaitGroup
	for i := 0; i < 100; i++ { group.Add(1); go func() { defer group.Done(); runtime.Gosched() }() }
	group.Wait()
	l, err := net.Listen("tcp", "127.0.0.1:0"); if err != nil { t.Fatal(err) }; l.Close()
	if err := exec.Command("true").Run(); err != nil { t.Fatal(err) }
	if _, err := net.Interfaces(); err != nil { t.Fatal(err) }
}
"""
JAVA = """
import java.net.*; import java.util.concurrent.*; import java.util.stream.*;
public class A { public static void main(String[] a) throws Exception {
  var pool = Executors.newFixedThreadPool(8);
  var sum = IntStream.range(0, 100).mapToObj(i -> pool.submit(() -> i)).mapToInt(f -> { try { return f.get(); }
    catch (Exception e) { throw new RuntimeException(e); } }).sum();
  try (var s = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) { s.getLocalPort(); }
  System.out.println(sum + " " + new ProcessBuilder("true").start().waitFor()); pool.shutdown(); } }
"""
RUST = """
use std::{net::TcpListener, process::Command, thread};
#[test] fn threads() { assert_eq!(thread::spawn(|| 42).join().unwrap(), 42); }
#[test] fn loopback() { TcpListener::bind("127.0.0.1:0").unwrap(); }
#[test] fn children() { assert!(Command::new("true").status().unwrap().success()); }
"""
PROGRAMS = {
    "gcc": ("a.c", C, "gcc -O2 -pthread a.c -o a && ./a", "42 7 leak"),
    "the address and leak sanitizers": ("a.c", C, "gcc -g -fsanitize=address,undefined -pthread a.c -o a && ./a", "42 7 leak"),
    "g++": (
        "a.cc",
        "#include <future>\n#include <iostream>\nint main()"
        " { std::cout << std::async(std::launch::async, [] { return 42; }).get(); }\n",
        "g++ -std=c++20 -pthread a.cc -o a && ./a",
        "42",
    ),
    "make": ("Makefile", "all: a b\na b:\n\t@sleep 0.1; echo made $@\n", "make -s -j2 | sort", "made a\nmade b\n"),
    "node": ("a.js", NODE, "node --test a.js | grep -E '^# (pass|fail)'", "# fail 0"),
    "pytest": ("test_a.py", PYTHON, "python3 -m pytest -q test_a.py", "7 passed"),
    "virtual environments": ("x", "", "python3 -m venv /tmp/v && /tmp/v/bin/python -c 'print(6*7)'", "42"),
    "git": (
        "a",
        "a",
        "git init -q /tmp/r && cd /tmp/r && echo 1 >a && git add a && git commit -qm 1 && git gc -q && git worktree add -q"
        " /tmp/w && git fsck && git -C /tmp/w log --oneline | wc -l",
        "1",
    ),
    "go": ("a_test.go", GO, "export GOFLAGS=-mod=mod GOPROXY=off; go mod init a 2>/dev/null; go test ./...", "ok"),
    "javac": ("A.java", JAVA, "javac A.java && java A", "4950 0"),
    "rustc": ("a.rs", RUST, "rustc --test a.rs -o a && ./a", "3 passed"),
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Open]:
    async with bench(tmp_path_factory.mktemp("bench")) as place, place.open(ROOMY) as box:
        yield box


@pytest.mark.parametrize("name", PROGRAMS)
async def test_it_works(box: Open, name: str) -> None:
    file, content, command, said = PROGRAMS[name]
    await box.edit("create", f"/workspace/{name.replace(' ', '-')}/{file}", file_text=content)
    result = await box.bash(f"cd /workspace/{name.replace(' ', '-')} && {command}", seconds=180)
    assert result.exit_code == 0, result.content
    assert said in result.content
