package unrendered

import (
	"bytes"
	"encoding/binary"
	"encoding/json"

	"github.com/usher-go/usher/internal/jsontext"
)

// The first byte of an encoded form has its kind in the lowest two bits.
const (
	kindBits   = 3
	isLate     = 4
	hasMembers = 8
	hasData    = 16
	hasPage    = 32

	// What each kind may have.
	ofReply   = isLate | hasData | hasPage
	ofFailure = isLate | hasMembers
)

// Append appends the encoding of f but for the body: the kind, and then for a message its
// text; for a failure its status; for a reply its status, code, message and page. Numbers
// are varints, and texts are preceded by their lengths.
func (f *Form) Append(b []byte) []byte {
	at := len(b)
	b = append(b, byte(f.Kind))
	mark := func(bit byte, is bool) {
		if is {
			b[at] |= bit
		}
	}
	if f.Kind == Message {
		return appendText(b, f.Message)
	}
	mark(isLate, f.Late)
	b = binary.AppendUvarint(b, uint64(f.Status))
	if f.Kind == Failure {
		mark(hasMembers, f.Members)
		return b
	}
	mark(hasData, f.Data != nil)
	mark(hasPage, f.Page != nil)
	b = appendText(b, f.Code)
	b = appendText(b, f.Message)
	if f.Page != nil {
		b = binary.AppendVarint(b, int64(f.Page.Number))
		b = binary.AppendVarint(b, int64(f.Page.Limit))
		b = binary.AppendVarint(b, int64(f.Page.Total))
	}
	return b
}

// Body returns the body to store with f in place of body: that of a message is body
// itself, that of a reply its data, and that of a failure a JSON object.
func (f *Form) Body(body []byte) []byte {
	switch f.Kind {
	case Reply:
		return f.Data
	case Failure:
		return f.failure()
	default:
		return body
	}
}

// SetBody changes f to what it is with another body. It returns false if there is no such
// form.
func (f *Form) SetBody(body []byte) bool {
	switch {
	case f.Kind == Message:
		return true
	case f.Kind == Failure:
		members := f.Members
		f.Members = false
		ok := f.parseFailure(body)
		f.Members = members && bytes.HasPrefix(f.Details, []byte("{"))
		return ok
	case len(body) == 0:
		f.Data = nil
		return true
	default:
		f.Data = body
		return json.Valid(body)
	}
}

// failure returns the public part of a failure as JSON, without its status. Members that
// are empty are left out.
func (f *Form) failure() []byte {
	b := make([]byte, 0, 128+len(f.Details))
	b = append(b, '{')
	member := func(name string) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(jsontext.AppendString(b, name), ':')
	}
	text := func(name, value string) {
		if value != "" {
			member(name)
			b = jsontext.AppendString(b, value)
		}
	}
	text("code", f.Code)
	text("type", f.Type)
	text("message", f.Message)
	text("param", f.Param)
	for i, field := range f.Fields {
		if i == 0 {
			member("errors")
			b = append(b, '[')
		} else {
			b = append(b, ',')
		}
		b = append(b, `{"field":`...)
		b = jsontext.AppendString(b, field.Name)
		b = append(b, `,"message":`...)
		b = append(jsontext.AppendString(b, field.Message), '}')
	}
	if len(f.Fields) > 0 {
		b = append(b, ']')
	}
	if f.Details != nil {
		member("details")
		b = append(b, f.Details...)
	}
	return append(b, '}')
}

// Parse returns the form that was encoded as b, with the stored body. It returns false if
// there is none.
func Parse(b, body []byte) (f *Form, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	first, r := b[0], reader{b: b[1:]}
	f = &Form{Kind: Kind(first & kindBits), Late: first&isLate != 0}
	var allowed byte
	switch f.Kind {
	case Message:
		f.Message = r.text()
	case Reply:
		allowed = ofReply
		f.Status, f.Code, f.Message = r.status(), r.text(), r.text()
		if first&hasPage != 0 {
			f.Page = &Page{Number: r.integer(), Limit: r.integer(), Total: r.integer()}
		}
		ok = len(body) == 0
		if first&hasData != 0 {
			f.Data, ok = body, true
		}
		r.failed = r.failed || !ok
	case Failure:
		allowed = ofFailure
		f.Status, f.Members = r.status(), first&hasMembers != 0
		r.failed = !f.parseFailure(body) || r.failed
	default:
		return nil, false
	}
	return f, first&^(allowed|kindBits) == 0 && !r.failed && len(r.b) == 0
}

func (f *Form) parseFailure(body []byte) bool {
	var parts struct {
		Code, Type, Message, Param string
		Errors                     []Field
		Details                    Raw
	}
	if err := json.Unmarshal(body, &parts); err != nil {
		return false
	}
	f.Code, f.Type, f.Message, f.Param = parts.Code, parts.Type, parts.Message, parts.Param
	f.Fields, f.Details = parts.Errors, parts.Details
	if f.Members {
		var members map[string]Raw
		return json.Unmarshal(f.Details, &members) == nil
	}
	return true
}

// Value returns the details of a failure: nil, a [Raw], or a map[string]any of them.
func (f *Form) Value() any {
	switch {
	case f.Members:
		var members map[string]Raw
		if err := json.Unmarshal(f.Details, &members); err != nil || members == nil {
			return map[string]any(nil)
		}
		values := make(map[string]any, len(members))
		for name, value := range members {
			values[name] = value
		}
		return values
	case f.Details != nil:
		return f.Details
	default:
		return nil
	}
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// A reader reads what Append has written.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) status() int {
	v, n := binary.Uvarint(r.b)
	if r.skip(n) && v <= 999 {
		return int(v)
	}
	r.failed = true
	return 0
}

func (r *reader) integer() int {
	v, n := binary.Varint(r.b)
	if r.skip(n) && int64(int(v)) == v {
		return int(v)
	}
	r.failed = true
	return 0
}

func (r *reader) text() string {
	length, n := binary.Uvarint(r.b)
	if !r.skip(n) || length > uint64(len(r.b)) {
		r.failed = true
		return ""
	}
	s := string(r.b[:length])
	r.b = r.b[length:]
	return s
}

// skip skips what a function that returned n has read.
func (r *reader) skip(n int) bool {
	if n <= 0 {
		return false
	}
	r.b = r.b[n:]
	return true
}
