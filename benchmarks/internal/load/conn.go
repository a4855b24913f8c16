package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// A Request is what a [Conn] sends again and again.
type Request struct {
	// Raw is the request as it goes over the wire.
	Raw []byte

	// Fresh, if any, are 16 characters within Raw that are another hexadecimal number
	// each time, such as the idempotency key of a request that is not a retry.
	Fresh string

	// Status and Body are those of the expected response. Body is compared with the
	// first response of a connection, Status with every one.
	Status int
	Body   func(body []byte) error
}

// Conn is a [Sender] over a connection that stays open. It does little of what
// [http.Client] does, so that it leaves as much of the machine as possible to the
// server.
type Conn struct {
	conn    net.Conn
	r       *bufio.Reader
	want    Request
	raw     []byte
	fresh   []byte // within raw
	started bool
	sent    http.Request // from which ReadResponse learns whether there is a body
}

const freshLen = 16 // digits of 64 bits

// The longest wait for a response, far longer than a server under test may take.
const patience = 30 * time.Second

// Dial connects to the server at address, for requests like want.
func Dial(ctx context.Context, address string, want Request) (*Conn, error) {
	c := &Conn{want: want, raw: bytes.Clone(want.Raw)}
	method, _, _ := bytes.Cut(want.Raw, []byte(" "))
	c.sent.Method = string(method)
	if want.Fresh != "" {
		at := bytes.Index(c.raw, []byte(want.Fresh))
		if at < 0 || len(want.Fresh) != freshLen {
			return nil, fmt.Errorf("load: no fresh part of %d characters in the request", freshLen)
		}
		c.fresh = c.raw[at : at+freshLen]
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	return c, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Send implements [Sender].
func (c *Conn) Send() error {
	if c.fresh != nil {
		var number [8]byte
		binary.BigEndian.PutUint64(number[:], rand.Uint64())
		hex.Encode(c.fresh, number[:])
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.conn.Write(c.raw); err != nil {
		return err
	}
	response, err := http.ReadResponse(c.r, &c.sent)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != c.want.Status {
		return fmt.Errorf("load: status %d, want %d", response.StatusCode, c.want.Status)
	}
	if c.started || c.want.Body == nil {
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	c.started = true
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return c.want.Body(body)
}
