package servers_test

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/servers"
)

func dial(t *testing.T, addr string) *bufio.ReadWriter {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 10*time.Second) //nolint:noctx // It has a timeout.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
}

func send(t *testing.T, c *bufio.ReadWriter, command string) {
	t.Helper()
	if _, err := c.WriteString(command + "\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

func wantReply(t *testing.T, c *bufio.ReadWriter, want string) {
	t.Helper()
	got, err := c.ReadString('\n')
	if err != nil || strings.TrimSpace(got) != want {
		t.Fatalf("reply %q, error %v, want %q", got, err, want)
	}
}

func TestARedisServerStartsAgainAfterACrash(t *testing.T) {
	s := servers.Redis(t, "maxmemory", "32mb")
	c := dial(t, s.Addr)
	send(t, c, "INCR n")
	wantReply(t, c, ":1")
	s.Kill()
	if _, err := c.ReadString('\n'); err == nil {
		t.Error("a connection to a killed server has replied")
	}
	s.Start()
	c = dial(t, s.Addr)
	send(t, c, "INCR n")
	wantReply(t, c, ":1")
}

func TestAProxyLosesTheReplyOfARequestThatWasExecuted(t *testing.T) {
	s := servers.Redis(t)
	p := servers.NewProxy(t, s.Addr)
	c := dial(t, p.Addr)
	send(t, c, "PING")
	wantReply(t, c, "+PONG")
	p.CutReply("INCR")
	send(t, c, "PING")
	wantReply(t, c, "+PONG")
	send(t, c, "INCR n")
	if got, err := c.ReadString('\n'); err == nil {
		t.Fatalf("reply %q, want none", got)
	}
	c = dial(t, p.Addr)
	send(t, c, "INCR n")
	wantReply(t, c, ":2")
}

func TestAProxyLosesAShareOfAllReplies(t *testing.T) {
	s := servers.Redis(t)
	p := servers.NewProxy(t, s.Addr)
	p.CutReplies(0.5, "INCR n\r\n", time.Millisecond)
	const requests = 100
	lost := 0
	for range requests {
		c := dial(t, p.Addr)
		send(t, c, "PING") // which is another request
		wantReply(t, c, "+PONG")
		send(t, c, "INCR n")
		if _, err := c.ReadString('\n'); err != nil {
			lost++
		}
	}
	if lost != p.Cuts() || lost == 0 || lost == requests {
		t.Errorf("%d replies are lost, and %d connections cut", lost, p.Cuts())
	}
	c := dial(t, s.Addr)
	send(t, c, "INCR n")
	wantReply(t, c, ":101")
}

func TestABlockedProxyIsABlackHole(t *testing.T) {
	s := servers.Redis(t)
	p := servers.NewProxy(t, s.Addr)
	c := dial(t, p.Addr)
	unblock := p.Block()
	send(t, c, "PING")
	raw, err := net.DialTimeout("tcp", p.Addr, 10*time.Second) //nolint:noctx // It has a timeout.
	if err != nil {
		t.Fatalf("the blocked proxy refuses a connection: %v", err)
	}
	defer func() { _ = raw.Close() }()
	_ = raw.SetDeadline(time.Now().Add(50 * time.Millisecond))
	_, _ = raw.Write([]byte("PING\r\n"))
	if _, err := raw.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the blocked proxy responds: %v", err)
	}
	unblock()
	wantReply(t, c, "+PONG")
}

func TestAPausedServerContinues(t *testing.T) {
	s := servers.Redis(t)
	c := dial(t, s.Addr)
	resume := s.Pause()
	send(t, c, "PING")
	time.Sleep(20 * time.Millisecond)
	if c.Reader.Buffered() > 0 {
		t.Error("a paused server responds")
	}
	resume()
	wantReply(t, c, "+PONG")
}

func TestAPostgresServerStartsAgainAfterACrash(t *testing.T) {
	s := servers.Postgres(t)
	psql := func(sql string) string {
		out, err := exec.CommandContext(t.Context(), "psql", s.DSN(), "-tAc", sql).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", sql, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	psql("create table t as select 7 as n")
	s.Kill()
	s.Start()
	if got := psql("select n from t"); got != "7" {
		t.Errorf("after a crash the table has %q, want 7", got)
	}
	resume := s.Pause()
	resume()
	psql("select 1")
}
