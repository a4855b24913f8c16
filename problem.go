package usher

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/usher-go/usher/internal/jsontext"
	"github.com/usher-go/usher/internal/problem"
)

// bodies are buffers for problem details, which are small.
var bodies = sync.Pool{New: func() any { return new([512]byte) }}

// writeProblem writes e as problem details.
func writeProblem(w http.ResponseWriter, e *Error, values *fieldValues) {
	buf := bodies.Get().(*[512]byte)
	write(w, e.status(), "application/problem+json", appendProblem(buf[:0], e), values)
	bodies.Put(buf)
}

func appendProblem(b []byte, e *Error) []byte {
	if head := problemHeads[e.status()%len(problemHeads)]; e.Type == "" && head.status == e.status() {
		b = append(b, head.text...)
	} else {
		b = appendProblemHead(b, cmp.Or(e.Type, untyped), e.status())
	}
	if e.Message != "" {
		b = append(b, `,"detail":`...)
		b = jsontext.AppendString(b, e.Message)
	}
	if e.Code != "" {
		b = append(b, `,"code":`...)
		b = jsontext.AppendString(b, e.Code)
	}
	if e.Param != "" {
		b = append(b, `,"param":`...)
		b = jsontext.AppendString(b, e.Param)
	}
	if len(e.Fields) > 0 {
		b = append(b, `,"errors":`...)
		b = appendValue(b, e.Fields)
	}
	return append(problem.AppendDetails(b, e.Details, appendValue), '}')
}

// untyped is the type of a problem that its status describes (RFC 9457, section 4.2.1).
const untyped = "about:blank"

func appendProblemHead(b []byte, kind string, status int) []byte {
	b = append(b, `{"type":`...)
	b = jsontext.AppendString(b, kind)
	b = append(b, `,"title":`...)
	b = jsontext.AppendString(b, http.StatusText(status))
	b = append(b, `,"status":`...)
	return strconv.AppendInt(b, int64(status), 10)
}

// problemHeads have what appendProblemHead returns for an untyped problem, by the last
// digits of its status. Those who guess credentials cause the same few again and again.
var problemHeads = func() (heads [16]struct {
	status int
	text   string
}) {
	for _, status := range [...]int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusTooManyRequests, http.StatusServiceUnavailable,
	} {
		head := &heads[status%len(heads)]
		head.status, head.text = status, string(appendProblemHead(nil, untyped, status))
	}
	return heads
}()

// appendValue appends v as JSON, or null if v cannot be encoded.
func appendValue(b []byte, v any) []byte {
	if texts, ok := v.([]string); ok && len(texts) > 0 {
		// The names of violated policies, in the refusals of rate limits, cost no allocation.
		for i, text := range texts {
			b = append(b, "[,"[min(i, 1)])
			b = jsontext.AppendString(b, text)
		}
		return append(b, ']')
	}
	body, err := json.Marshal(v)
	if err != nil {
		return append(b, "null"...)
	}
	return append(b, body...)
}
