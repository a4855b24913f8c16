package servers

import (
	"bytes"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// A Proxy passes TCP connections on to a server, and fails in the ways in which networks
// do. Give each client a proxy of its own. It is safe for concurrent use.
type Proxy struct {
	// Addr is the address at which the proxy listens.
	Addr string

	target string
	listen net.Listener
	done   sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond
	blocked bool
	closed  bool
	cut     []byte // in the request whose reply is lost; nil for none
	nth     int    // how many requests from now on CutNth cuts one; 0 for none
	whole   bool   // CutNth loses the request too
	links   map[*link]struct{}

	// Of CutReplies.
	share  float64
	end    []byte
	within time.Duration
	cuts   int
}

// A link is one connection through the proxy.
type link struct {
	client, server net.Conn
	cut            bool          // the next reply is lost
	within         time.Duration // in which the connection is reset; 0 means when the reply comes
}

// NewProxy returns a proxy to the server at target, which ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, listen: l, links: make(map[*link]struct{})}
	p.changed.L = &p.mu
	p.done.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Block makes the proxy a black hole: it accepts connections and everything that is sent,
// and passes nothing on in either direction until unblock is called.
func (p *Proxy) Block() (unblock func()) {
	p.set(func() { p.blocked = true })
	return func() { p.set(func() { p.blocked = false }) }
}

// CutReply loses the reply to the next request that contains the text request: the server
// executes the request, and then the connection is reset. An empty text matches any
// request.
func (p *Proxy) CutReply(request string) { p.set(func() { p.cut = []byte(request) }) }

// CutNth loses the reply to the n-th request from now on, counted from 1, or the whole
// request: the server then does not execute it. In both cases the connection is reset. It
// returns a function that reports whether there has been such a request.
func (p *Proxy) CutNth(n int, whole bool) (cut func() bool) {
	p.set(func() { p.nth, p.whole = n, whole })
	return func() (done bool) {
		p.set(func() { done = p.nth == 0 })
		return done
	}
}

// CutReplies loses the replies to a share of all requests, from 0 to 1. When such a request
// has been passed on, which shows in the text at its end, the connection is reset: within
// the given time, chosen at random, or when the reply comes.
func (p *Proxy) CutReplies(share float64, end string, within time.Duration) {
	p.set(func() { p.share, p.end, p.within = share, []byte(end), within })
}

// Cuts returns how many connections CutReplies has reset.
func (p *Proxy) Cuts() (n int) {
	p.set(func() { n = p.cuts })
	return n
}

// Reset resets all connections.
func (p *Proxy) Reset() {
	p.set(func() {
		for l := range p.links {
			l.reset()
		}
	})
}

func (p *Proxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.changed.Broadcast()
}

func (p *Proxy) close() {
	_ = p.listen.Close()
	p.set(func() { p.closed, p.blocked = true, false })
	p.Reset()
	p.done.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target) //nolint:noctx // A loopback address fails at once.
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server}
	p.set(func() { p.links[l] = struct{}{} })
	var both sync.WaitGroup
	both.Go(func() { p.pass(l, client, server, p.request, p.requestPassed) })
	both.Go(func() { p.pass(l, server, client, p.reply, func(*link) {}) })
	both.Wait()
	p.set(func() { delete(p.links, l) })
}

// pass copies data between two connections for as long as seen permits, and then closes
// both. It calls passed after it has passed data on.
func (p *Proxy) pass(l *link, from, to net.Conn, seen func(*link, []byte) bool, passed func(*link)) {
	defer func() {
		_ = from.Close()
		_ = to.Close()
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if !seen(l, b[:n]) {
				return
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
			passed(l)
		}
		if err != nil {
			return
		}
	}
}

// request reports whether data from a client is passed on to the server.
func (p *Proxy) request(l *link, b []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait()
	if p.cut != nil && bytes.Contains(b, p.cut) {
		p.cut, l.cut = nil, true
	}
	if p.nth > 0 {
		if p.nth--; p.nth == 0 && p.whole {
			l.reset()
			return false
		} else if p.nth == 0 {
			l.cut = true
		}
	}
	if p.share > 0 && bytes.HasSuffix(b, p.end) && rand.Float64() < p.share {
		p.cuts++
		l.cut, l.within = true, rand.N(p.within+1)
	}
	return !p.closed
}

// requestPassed is called when data from a client has been passed on.
func (p *Proxy) requestPassed(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.within > 0 {
		time.AfterFunc(l.within, l.reset)
	}
}

// reply reports whether data from the server is passed on to the client.
func (p *Proxy) reply(l *link, _ []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait()
	if l.cut {
		l.reset()
	}
	return !p.closed && !l.cut
}

// wait waits while the proxy is blocked. The caller holds p.mu.
func (p *Proxy) wait() {
	for p.blocked {
		p.changed.Wait()
	}
}

func (l *link) reset() {
	for _, c := range []net.Conn{l.client, l.server} {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	}
}
