package peers_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// program returns the path of a program. Without it the test is skipped, or fails
// where USHER_REQUIRE_SERVICES is 1.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	if os.Getenv("USHER_REQUIRE_SERVICES") == "1" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// freeAddress returns an address of the loopback that is not in use.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// start runs a service until the test ends, and returns when it accepts
// connections at address.
func start(t *testing.T, address, path string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var output lockedBuffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 3 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		cancel()
		<-exited
		if t.Failed() {
			t.Logf("%s wrote:\n%s", path, output.String())
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-exited:
			t.Fatalf("%s has exited:\n%s", path, output.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not accept connections at %s:\n%s", path, address, output.String())
		}
	}
}

// configure writes a configuration in which each NAME of pairs is replaced by its
// value, and returns its path.
func configure(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(strings.NewReplacer(pairs...).Replace(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// serve serves h on the loopback and returns its address.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// serveOn serves h at an address of a network, which may have the port 0, and returns its
// address.
func serveOn(t *testing.T, network, address string, h http.Handler) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return l.Addr().String()
}

// varnish runs Varnish with its built-in rules before backend, and returns its
// address.
func varnish(t *testing.T, backend string) string {
	t.Helper()
	return varnishWith(t, backend, "")
}

// varnishWith runs Varnish with these rules before the built-in ones.
func varnishWith(t *testing.T, backend, rules string) string {
	t.Helper()
	address, path := freeAddress(t), program(t, "varnishd")
	host, port, _ := strings.Cut(backend, ":")
	start(t, address, path, "-F", "-j", "none", "-n", t.TempDir(), "-a", address, "-f", configure(t, `vcl 4.1;
backend service { .host = "HOST"; .port = "PORT"; }
RULES`, "HOST", host, "PORT", port, "RULES", rules))
	return address
}

// nginx runs nginx with these directives in its one server, in which BACKEND is
// the address of backend, and returns its address.
func nginx(t *testing.T, backend, directives string) string {
	t.Helper()
	address, dir := freeAddress(t), t.TempDir()
	start(t, address, program(t, "nginx"), "-p", dir, "-e", "stderr", "-c", configure(t, `
daemon off;
master_process off;
pid DIR/pid;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	proxy_cache_path DIR/cache keys_zone=cache:1m;
	server {
		listen ADDRESS;
		DIRECTIVES
	}
}`, "DIRECTIVES", strings.ReplaceAll(directives, "BACKEND", backend), "DIR", dir, "ADDRESS", address))
	return address
}

// haproxy runs haproxy before backend and returns its address.
func haproxy(t *testing.T, backend string) string {
	t.Helper()
	address := freeAddress(t)
	start(t, address, program(t, "haproxy"), "-db", "-f", configure(t, `
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
listen proxy
	bind ADDRESS
	server backend BACKEND
`, "ADDRESS", address, "BACKEND", backend))
	return address
}

// A lockedBuffer is a buffer for the output of a process that a test may read
// before it has ended.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
