package envelope

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/delay"
	"github.com/usher-go/usher/internal/jsontext"
	"github.com/usher-go/usher/internal/unrendered"
)

// A scratch holds what it takes to build one response: a buffer, an encoder that writes
// to the buffer, and the [Response] for the shape.
type scratch struct {
	b        []byte
	enc      *json.Encoder
	response Response
	// The data of a reply is b[dataAt:dataEnd].
	dataAt, dataEnd int
	header          http.Header // as it was at the status of an undecided response
}

// maxPooled is the capacity of the largest buffer that the pool keeps.
const maxPooled = 64 << 10

var scratches = sync.Pool{New: func() any {
	s := &scratch{b: make([]byte, 0, 1<<10)}
	s.enc = json.NewEncoder(s)
	return s
}}

func newScratch() *scratch { return scratches.Get().(*scratch) }

func (s *scratch) release() {
	if cap(s.b) > maxPooled {
		return
	}
	s.b = s.b[:0]
	s.response = Response{}
	s.header = nil
	scratches.Put(s)
}

// Write appends p to the buffer. The encoder calls it.
func (s *scratch) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// AppendString appends s as a JSON string, exactly as encoding/json does by
// default.
func AppendString(b []byte, s string) []byte { return jsontext.AppendString(b, s) }

// appendValue appends the encoding of v to b, which may be the buffer of s. On error
// it returns b unchanged. Data of a replay is encoded already.
func (e *Envelope) appendValue(s *scratch, b []byte, v any) ([]byte, error) {
	if raw, ok := v.(unrendered.Raw); ok {
		return append(b, raw...), nil
	}
	if e.marshal != nil {
		data, err := e.marshal(v)
		if err != nil {
			return b, err
		}
		return append(b, data...), nil
	}
	s.b = b
	if err := s.enc.Encode(v); err != nil {
		return b, err
	}
	return s.b[:len(s.b)-1], nil // the encoder ends with a line feed
}

// appendMember appends another member, or nothing if value is empty. The name must
// need no escape.
func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return AppendString(b, value)
}

func appendFields(b []byte, fields []usher.Field) []byte {
	if len(fields) == 0 {
		return b
	}
	b = append(b, `,"errors":`...)
	return appendFieldList(b, fields)
}

func appendFieldList(b []byte, fields []usher.Field) []byte {
	b = append(b, '[')
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"field":`...)
		b = AppendString(b, f.Name)
		b = append(b, `,"message":`...)
		b = append(AppendString(b, f.Message), '}')
	}
	return append(b, ']')
}

// appendDetails appends the details of an error, or else the JSON that a handler wrote.
func appendDetails(b []byte, resp *Response) []byte {
	switch {
	case resp.Details != nil:
		b = append(b, `,"details":`...)
		return resp.AppendValue(b, resp.Details)
	case resp.Original != nil:
		b = append(b, `,"details":`...)
		return append(b, resp.Original...)
	}
	return b
}

func appendPage(b []byte, p *usher.Page) []byte {
	if p == nil {
		return b
	}
	b = append(b, `,"pagination":{"page":`...)
	b = strconv.AppendInt(b, int64(p.Number), 10)
	b = append(b, `,"limit":`...)
	b = strconv.AppendInt(b, int64(p.Limit), 10)
	b = append(b, `,"total":`...)
	b = strconv.AppendInt(b, int64(p.Total), 10)
	b = append(b, `,"pages":`...)
	b = strconv.AppendInt(b, int64(p.Pages()), 10)
	return append(b, '}')
}

func appendRetryAfter(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return b
	}
	b = append(b, `,"retry_after":`...)
	return strconv.AppendInt(b, delay.Seconds(d), 10)
}

// A second holds the formatted text of one second of time, up to the decimal point.
type second struct {
	unix int64
	text string
}

// latest is the second that was formatted last. Most responses reuse it.
var latest atomic.Pointer[second]

// appendTime appends t in UTC in the format of RFC 3339, with milliseconds.
func appendTime(b []byte, t time.Time) []byte {
	s := latest.Load()
	if unix := t.Unix(); s == nil || s.unix != unix {
		s = &second{unix, t.UTC().Format("2006-01-02T15:04:05.")}
		latest.Store(s)
	}
	b = append(b, s.text...)
	ms := t.Nanosecond() / int(time.Millisecond)
	return append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}
