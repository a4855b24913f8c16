// Package servers starts real servers for the tests of stores, each on a loopback address
// of its own, and damages the connections to them. Only tests import it.
package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Server is a process that runs until its test ends. Its methods fail the test if they
// fail.
type Server struct {
	// Addr is the TCP address of the server: a loopback address of its own, and a port.
	Addr string

	t    testing.TB
	name string
	args []string
	env  []string
	uid  uint32 // of the process; 0 for that of the test
	gid  uint32
	dir  string
	cmd  *exec.Cmd
	log  *bytes.Buffer
	// ready reports whether the server serves.
	ready func(addr string) error
}

// startTimeout bounds how long a server may take to start. It leaves time for a loaded
// machine.
const startTimeout = 30 * time.Second

// Redis starts a redis-server with additional directives, for instance "maxmemory", "4mb".
// The server keeps nothing on disk unless a directive says so.
func Redis(t testing.TB, directives ...string) *Server {
	t.Helper()
	program := find(t, "redis-server")
	s := newServer(t, "redis-server")
	host, port, _ := net.SplitHostPort(s.Addr)
	s.args = []string{program, "--bind", host, "--port", port, "--dir", s.dir, "--save", "", "--appendonly", "no"}
	for i, d := range directives {
		if i%2 == 0 {
			d = "--" + d
		}
		s.args = append(s.args, d)
	}
	s.ready = redisReady
	s.Start()
	return s
}

func redisReady(addr string) error { return probe(addr, "PING\r\n", "+PONG") }

// postgresReady opens a session as any client does, and expects to be admitted.
func postgresReady(addr string) error {
	return probe(addr, "\x00\x00\x00\x29\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00", "R")
}

// probe returns an error unless the reply of a server to request begins with reply.
func probe(addr, request, reply string) error {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte(request)); err != nil {
		return err
	}
	b := make([]byte, 512)
	n, err := c.Read(b)
	if err == nil && !strings.HasPrefix(string(b[:n]), reply) {
		err = fmt.Errorf("the reply is %q", b[:n])
	}
	return err
}

// Postgres starts a PostgreSQL server with these settings, for instance "fsync=on". Its
// superuser is postgres, who needs no password: see [Server.DSN]. Unless a setting
// says otherwise, the server does not wait for the disk.
func Postgres(t testing.TB, settings ...string) *Server {
	t.Helper()
	program := find(t, "postgres")
	s := newServer(t, "postgres")
	s.unprivileged()
	data := filepath.Join(s.dir, "data")
	init := s.command(find(t, "initdb"),
		"--pgdata", data, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	host, port, _ := net.SplitHostPort(s.Addr)
	s.args = []string{program, "-D", data, "-k", s.dir, "-h", host, "-p", port, "-c", "fsync=off", "-c", "full_page_writes=off"}
	for _, setting := range settings {
		s.args = append(s.args, "-c", setting)
	}
	s.ready = postgresReady
	s.Start()
	return s
}

// DSN returns the URL of the database postgres of a Postgres server.
func (s *Server) DSN() string { return DSN(s.Addr) }

// DSN returns the URL of a Postgres server at this address, for instance that of a
// [Proxy].
func DSN(addr string) string {
	return "postgres://postgres@" + addr + "/postgres?sslmode=disable&connect_timeout=5"
}

// find returns the path of a program. If the program is missing, the test is skipped, or
// fails if USHER_REQUIRE_SERVICES is 1.
func find(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		// Debian keeps the programs of each version of PostgreSQL apart.
		versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
		if len(versions) > 0 {
			return versions[len(versions)-1]
		}
		if os.Getenv("USHER_REQUIRE_SERVICES") == "1" {
			t.Fatalf("%s is missing", program)
		}
		t.Skipf("%s is missing", program)
	}
	return path
}

func newServer(t testing.TB, name string) *Server {
	t.Helper()
	// Not t.TempDir: the path of a Unix socket must be short.
	dir, err := os.MkdirTemp("", "usher-") //nolint:usetesting // Its name would be too long.
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, name: name, dir: dir, log: new(bytes.Buffer), Addr: freeAddr(t)}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, last(s.log.Bytes(), 4000))
		}
		_ = os.RemoveAll(dir)
	})
	return s
}

func last(b []byte, n int) []byte { return b[max(len(b)-n, 0):] }

// freeAddr returns an address on which nothing listens. Hardly any other program uses an
// address of this range, so the port stays free until the server listens on it, and is
// free again when the server restarts.
func freeAddr(t testing.TB) string {
	t.Helper()
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", host+":0")
	if err != nil {
		// Only Linux has all of these addresses without set-up.
		l, err = lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// unprivileged makes the server run as another user if the test runs as root: PostgreSQL
// refuses to run as root.
func (s *Server) unprivileged() {
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		s.t.Fatalf("PostgreSQL does not run as root: %v", err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	s.uid, s.gid = uint32(uid), uint32(gid)
	if err := os.Chown(s.dir, int(uid), int(gid)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), name, args...) // The end of the test kills it.
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), s.env...)
	cmd.SysProcAttr = dieWithParent()
	if s.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.uid, Gid: s.gid}
	}
	return cmd
}

// Start starts the server again after [Server.Kill], with the data that it had on disk,
// and returns when it serves.
func (s *Server) Start() {
	s.t.Helper()
	s.cmd = s.command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", s.name, err)
	}
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.ready(s.Addr)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not serve: %v", s.name, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill kills the server and its children with SIGKILL, as a crash does. Killing it again
// does nothing.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Pause stops the server and its children with SIGSTOP: connections stay open, and nothing
// responds. Resume lets them continue.
func (s *Server) Pause() (resume func()) {
	s.signal(syscall.SIGSTOP)
	return func() { s.signal(syscall.SIGCONT) }
}

func (s *Server) signal(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	pid := s.cmd.Process.Pid
	// First the parent must stop, so that it starts no more children.
	if sig != syscall.SIGCONT {
		s.kill(pid, syscall.SIGSTOP)
		awaitStop(pid)
	}
	for _, child := range children(pid) {
		s.kill(child, sig)
		if sig == syscall.SIGSTOP {
			awaitStop(child)
		}
	}
	s.kill(pid, sig)
}

func (s *Server) kill(pid int, sig syscall.Signal) {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.t.Errorf("send %v to %s: %v", sig, s.name, err)
	}
}

// awaitStop waits until a process has stopped, on Linux: until then it may still start a
// child or respond.
func awaitStop(pid int) {
	for range 1000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(b, []byte(") T ")) || bytes.Contains(b, []byte(") Z ")) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// children returns the processes whose parent is pid, on Linux. A process group does not
// include them: the children of PostgreSQL leave it.
func children(pid int) (all []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, _ := os.ReadFile(path) // It fails for a process that has ended.
		// After the name of the program, which is in parentheses: the state, the parent.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}
