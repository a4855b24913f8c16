package envelope

import (
	"encoding/json"
	"sync"
)

// A scratch is what one answer is made of: a buffer, an encoder into it, and
// the [Response] for the shape.
type scratch struct {
	b        []byte
	enc      *json.Encoder
	response Response
}

// maxPooled is the capacity of the largest buffer that is kept for later.
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
	scratches.Put(s)
}

// Write appends p, for the encoder.
func (s *scratch) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// appendValue appends v, encoded, to b, which may be the buffer of s. On error b
// is returned as it was.
func (e *Envelope) appendValue(s *scratch, b []byte, v any) ([]byte, error) {
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
