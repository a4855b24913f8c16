package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// A stream writes and flushes "first", calls proceed, which returns when the client has
// received that, and writes "second".
type stream func(c Context, proceed func()) error

func streamBy(flush func(http.ResponseWriter) error) stream {
	return func(c Context, proceed func()) error {
		_, err := io.WriteString(c.Writer(), "first")
		if err := all(err, flush(c.Writer())); err != nil {
			return err
		}
		proceed()
		_, err = io.WriteString(c.Writer(), "second")
		return err
	}
}

func streamNatively(c Context, proceed func()) error {
	steps := 0
	return c.Stream(func(w io.Writer) bool {
		steps++
		if steps == 1 {
			_, _ = io.WriteString(w, "first")
			return true
		}
		proceed()
		_, _ = io.WriteString(w, "second")
		return false
	})
}

func checkStream(s stream) func(*bench) error {
	return byAllWays(func(b *bench, t *tee, step Step) error {
		// A writer that cannot flush cannot stream.
		if step.Foreign != nil {
			step = Step{Foreign: t.Wrap}
		}
		err := checkFirstByte(b, []Step{step}, "first", "second", s)
		seen, missing := t.capture()
		return first(err, missing, same("what is captured", seen, capture{200, "firstsecond", true}))
	})
}

// checkFirstByte checks that one piece of the response arrives before the handler writes
// the next.
func checkFirstByte(b *bench, use []Step, one, two string, s stream, header ...string) error {
	arrived := make(chan struct{})
	var delayed atomic.Bool
	handler := func(c Context) error {
		return s(c, func() {
			select {
			case <-arrived:
			case <-time.After(10 * time.Second):
				delayed.Store(true)
			}
		})
	}
	c := b.serve(App{Use: use, Routes: []Route{post("/", handler)}})
	resp, err := c.open(http.MethodPost, "/", "", header...)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	piece := make([]byte, len(one))
	if _, err := io.ReadFull(resp.Body, piece); err != nil {
		return err
	}
	close(arrived)
	rest, err := io.ReadAll(resp.Body)
	return all(err,
		same("the first piece is delayed until the handler returns", delayed.Load(), false),
		same("status", resp.StatusCode, 200),
		same("first piece", string(piece), one),
		same("the rest", string(rest), two),
	)
}

// checkSSE sends events through the whole stack, in a request with an idempotency key.
func checkSSE(b *bench) error {
	use, keys := newStack(b, "ann")
	events := func(c Context, proceed func()) error {
		w := c.Writer()
		w.Header().Set("Content-Type", "text/event-stream")
		if _, err := io.WriteString(w, "data: 1\n\n"); err != nil {
			return err
		}
		if err := flushByController(w); err != nil {
			return err
		}
		proceed()
		_, err := io.WriteString(w, "data: 2\n\n")
		return err
	}
	return checkFirstByte(b, use, "data: 1\n\n", "data: 2\n\n", events, "X-API-Key: "+keys["ann"], "Idempotency-Key: one")
}

// checkFile sends a whole file, and part of it, through the whole stack.
func checkFile(b *bench) error {
	use, keys := newStack(b, "ann")
	path, text := newFile(b, 1<<20)
	c := b.serve(App{Use: use, Routes: []Route{get("/", func(c Context) error { return c.File(path) })}})
	whole := c.get("/", "X-API-Key: "+keys["ann"])
	part := c.get("/", "X-API-Key: "+keys["ann"], "Range: bytes=1000-1999")
	return all(
		same("status", whole.status, 200),
		same("length", len(whole.body), len(text)),
		same("the body is the file", whole.body == text, true),
		same("status of a part", part.status, 206),
		same("part", part.body, text[1000:2000]),
	)
}

// checkHijack hijacks the connection inside the whole stack.
func checkHijack(b *bench) error {
	use, keys := newStack(b, "ann")
	c := b.serve(App{Use: use, Routes: []Route{get("/", func(c Context) error {
		conn, rw, err := http.NewResponseController(c.Writer()).Hijack()
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		line, err := rw.ReadString('\n')
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\ngot %s", line)
		return err
	})}})
	conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", c.addr.String())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\n\r\nhello\n", keys["ann"])
	got, err2 := io.ReadAll(conn)
	return all(err, err2, same("response", string(got), "HTTP/1.1 101 Switching Protocols\r\n\r\ngot hello\n"))
}

// checkWebsocket has a handler inside the whole stack echo messages.
func checkWebsocket(echo func(c Context) error) func(*bench) error {
	return func(b *bench) error {
		use, keys := newStack(b, "ann")
		c := b.serve(App{Use: use, Routes: []Route{get("/", echo)}})
		url := "ws" + strings.TrimPrefix(c.url, "http")
		dialer := &gorilla.Dialer{HandshakeTimeout: 10 * time.Second}
		conn, resp, err := dialer.DialContext(b.Context(), url, http.Header{"X-Api-Key": {keys["ann"]}})
		if err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		defer func() { _ = conn.Close() }()
		_ = resp.Body.Close()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		for _, text := range []string{"hello", strings.Repeat("long", 10_000)} {
			if err := conn.WriteMessage(gorilla.TextMessage, []byte(text)); err != nil {
				return err
			}
			_, got, err := conn.ReadMessage()
			if err := all(err, same("message", string(got), "ann: "+text)); err != nil {
				return err
			}
		}
		_, err = c.try(http.MethodGet, "/", "")
		return err // the server must still serve others
	}
}

func echoByGorilla(c Context) error {
	conn, err := new(gorilla.Upgrader).Upgrade(c.Writer(), c.Request(), nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	p, _ := c.Principal()
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			return nil
		}
		if err := conn.WriteMessage(kind, append([]byte(p.Owner+": "), message...)); err != nil {
			return nil
		}
	}
}

func echoByCoder(c Context) error {
	conn, err := coder.Accept(c.Writer(), c.Request(), nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	p, _ := c.Principal()
	for {
		kind, message, err := conn.Read(context.Background())
		if err != nil {
			return nil
		}
		if err := conn.Write(context.Background(), kind, append([]byte(p.Owner+": "), message...)); err != nil {
			return nil
		}
	}
}

// checkAbilities checks for the methods that handlers and libraries look for in a writer.
func checkAbilities(b *bench) error {
	use, keys := newStack(b, "ann")
	found := make(chan error, 1)
	use = append(use, Step{Usher: middlewareFunc(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		_, flusher := w.(http.Flusher)
		_, hijacker := w.(http.Hijacker)
		_, unwrapper := w.(interface{ Unwrap() http.ResponseWriter })
		found <- all(
			same("http.Flusher", flusher, true),
			same("http.Hijacker", hijacker, true),
			same("Unwrap", unwrapper, true),
			same("io.StringWriter outside", hasStringWriter(w), true),
		)
		next.ServeHTTP(w, r)
	})})
	c := b.serve(App{Use: use, Routes: []Route{get("/", ok)}})
	c.get("/", "X-API-Key: "+keys["ann"])
	select {
	case err := <-found:
		return err
	default:
		return errors.New("the middleware did not run")
	}
}

func hasStringWriter(w http.ResponseWriter) bool {
	for {
		if _, ok := w.(io.StringWriter); ok {
			return true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
}
