package byhand

import (
	"net"
	"net/http"
	"time"
)

// A Response is the usual envelope, as a type to be encoded. It leaves out request
// IDs, catalogues of texts, bounds on what it repeats of the URL, the removal of
// secrets from it, and everything that a handler does not write itself.
type Response struct {
	StatusCode int      `json:"status_code"`
	Message    string   `json:"message"`
	Data       any      `json:"data,omitempty"`
	Metadata   Metadata `json:"metadata"`
}

// Metadata is about the request.
type Metadata struct {
	Method       string `json:"method"`
	URL          string `json:"url"`
	Milliseconds int64  `json:"execution_time_ms"`
	IP           string `json:"ip"`
	Timestamp    string `json:"timestamp"`
}

// NewResponse returns the response with data to r, which arrived at start.
func NewResponse(r *http.Request, start time.Time, status int, message string, data any) *Response {
	ip, _, _ := net.SplitHostPort(r.RemoteAddr)
	return &Response{
		StatusCode: status, Message: message, Data: data,
		Metadata: Metadata{
			Method: r.Method, URL: r.URL.RequestURI(), Milliseconds: time.Since(start).Milliseconds(),
			IP: ip, Timestamp: start.UTC().Format("2006-01-02T15:04:05.000Z"),
		},
	}
}
