package contract

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
)

// A Transport is how client and server are connected.
type Transport string

// The transports.
const (
	HTTP1  Transport = "HTTP/1.1" // over loopback TCP
	HTTP2  Transport = "HTTP/2"   // over TLS and loopback TCP
	Memory Transport = "memory"   // HTTP/1.1 over in-memory connections, for bubbles
)

// Serve starts a server for h and returns a client of it. Both end with the test.
func Serve(tb testing.TB, h http.Handler, over Transport) *Client {
	tb.Helper()
	if over == Memory {
		return serveMemory(tb, h)
	}
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if over == HTTP2 {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	tb.Cleanup(s.Close)
	c := s.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{TB: tb, URL: s.URL, IP: "127.0.0.1", HTTP: c, Over: over, dial: func() (net.Conn, error) {
		return new(net.Dialer).DialContext(tb.Context(), "tcp", s.Listener.Addr().String())
	}}
}

// peerAddr is the address of in-memory clients, except those of From.
var peerAddr = netip.MustParseAddr("192.0.2.1")

func serveMemory(tb testing.TB, h http.Handler) *Client {
	l := &listener{conns: make(chan net.Conn), done: make(chan struct{})}
	s := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(l) })
	tb.Cleanup(func() {
		_ = s.Close()
		served.Wait()
	})
	c := &Client{TB: tb, URL: "http://memory", Over: Memory, listener: l}
	return c.From(peerAddr)
}

// From returns a client like c that calls from addr, in memory.
func (c *Client) From(addr netip.Addr) *Client {
	dial := func() (net.Conn, error) { return c.listener.dial(addr) }
	t := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }}
	c.TB.Cleanup(t.CloseIdleConnections)
	other := *c
	other.IP, other.HTTP, other.dial = addr.Unmap().String(), &http.Client{Transport: t}, dial
	return &other
}

// A listener accepts in-memory connections.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) dial(from netip.Addr) (net.Conn, error) {
	server, client := net.Pipe()
	select {
	case l.conns <- conn{server, net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 49152))}:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (*listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 0), Port: 80} }

// A conn has the address that its client calls from.
type conn struct {
	net.Conn
	from net.Addr
}

func (c conn) RemoteAddr() net.Addr { return c.from }
