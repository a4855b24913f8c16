package usherredis

import (
	"context"
	"sync"

	"github.com/redis/rueidis"
)

// A link is a client that is made when it is first needed, since rueidis makes none while
// the server is absent. After that, the client itself connects again whenever it must.
type link struct {
	option rueidis.ClientOption
	secret string
	own    bool // whether the link has made, and closes, the client

	mu      sync.Mutex
	client  rueidis.Client // nil until an attempt has succeeded
	attempt *attempt       // the one that is running, or nil
	closed  chan struct{}
	running sync.WaitGroup // the calls of the client; one is added with the lock
}

// An attempt to connect is shared by all calls that need a connection.
type attempt struct {
	done   chan struct{}
	client rueidis.Client
	err    error
}

func newLink(o rueidis.ClientOption, client rueidis.Client) *link {
	return &link{option: o, secret: o.Password, own: client == nil, client: client, closed: make(chan struct{})}
}

// A reply is the result of a call.
type reply struct {
	message rueidis.RedisMessage
	err     error
}

// call makes a call on a goroutine of its own, and returns when ctx ends. The calls of a
// client that is connecting again do not end with ctx: they go on until the client gives
// them up, and the server may still execute them.
func (l *link) call(ctx context.Context, do func(rueidis.Client) rueidis.RedisResult) (rueidis.RedisMessage, error) {
	client, err := l.connect(ctx)
	if err != nil {
		return rueidis.RedisMessage{}, l.failure(ctx, err)
	}
	done := make(chan reply, 1)
	l.mu.Lock()
	if l.isClosed() {
		l.mu.Unlock()
		return rueidis.RedisMessage{}, errClosed
	}
	l.running.Go(func() {
		m, err := do(client).ToMessage()
		done <- reply{m, err}
	})
	l.mu.Unlock()
	select {
	case r := <-done:
		if r.err != nil {
			return r.message, l.failure(ctx, r.err)
		}
		return r.message, nil
	case <-ctx.Done():
		return rueidis.RedisMessage{}, l.failure(ctx, ctx.Err())
	}
}

// connect returns the client, once there is one. The attempt outlives the call that has
// begun it, since other calls wait for it too: it ends after the timeout for dialing.
func (l *link) connect(ctx context.Context) (rueidis.Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	client, a := l.client, l.attempt
	switch {
	case l.isClosed():
		l.mu.Unlock()
		return nil, errClosed
	case client != nil:
		l.mu.Unlock()
		return client, nil
	case a == nil:
		a = &attempt{done: make(chan struct{})}
		l.attempt = a
		go l.dial(a)
	}
	l.mu.Unlock()
	select {
	case <-a.done:
		return a.client, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, errClosed
	}
}

func (l *link) dial(a *attempt) {
	client, err := rueidis.NewClient(l.option)
	if err != nil && client != nil {
		client.Close()
		client = nil
	}
	l.mu.Lock()
	a.client, a.err = client, err
	l.attempt = nil
	closed := l.isClosed()
	if !closed {
		l.client = client
	}
	close(a.done)
	l.mu.Unlock()
	if closed && client != nil {
		client.Close()
	}
}

func (l *link) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// close closes the client, unless it is the caller's own. A running attempt ends after the
// timeout for dialing. The contexts of all calls have ended.
func (l *link) close() {
	l.mu.Lock()
	if l.isClosed() {
		l.mu.Unlock()
		return
	}
	close(l.closed)
	client := l.client
	l.mu.Unlock()
	if client != nil && l.own {
		// A call that is still connecting would leave its connection open.
		l.running.Wait()
		client.Close()
	}
}
