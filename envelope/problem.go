package envelope

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/usher-go/usher/internal/problem"
)

// Problem returns the shape of a [ProblemConfig] with this TypePrefix.
func Problem(typePrefix string) Shape { return ProblemConfig{TypePrefix: typePrefix}.Shape() }

// A ProblemConfig describes a shape with bare successes and problem details (RFC 9457):
//
//	{"type":"https://api.example.com/problems/rate_limited","title":"Too Many Requests",
//	 "status":429,"detail":"...","code":"rate_limited"}
//
// The type is the first of these: the Type of the catalogue, if it is an absolute URI, or
// else after TypePrefix; the Documentation of the catalogue; [usher.Error.Type];
// TypePrefix followed by the code; and about:blank, if TypePrefix is empty.
//
// Faulty fields become "errors". The entries of a map[string]any in [usher.Error.Details]
// become extension members, and any other details become "details". RFC 9457, section 3.2
// recommends that extension names consist of at least three letters, digits or
// underscores and start with a letter.
type ProblemConfig struct {
	// TypePrefix precedes a type that is not a URI, and the code of an error without a type.
	TypePrefix string
	// InstancePrefix followed by the request ID, escaped as in a path, is the "instance",
	// for example "urn:request:" or the address of a page of the support. Empty means no
	// "instance".
	InstancePrefix string
	// RequestID adds "request_id".
	RequestID bool
}

// Shape returns the shape that c describes.
func (c ProblemConfig) Shape() Shape {
	return Shape{ErrorType: "application/problem+json", Error: c.error}
}

func (c ProblemConfig) error(b []byte, resp *Response) []byte {
	title := http.StatusText(resp.Status)
	b = append(b, `{"type":`...)
	switch {
	case strings.Contains(resp.Type, ":"):
		b = AppendString(b, resp.Type)
	case resp.Type != "" && c.TypePrefix != "":
		b = AppendString(b, c.TypePrefix+resp.Type)
	case resp.Documentation != "":
		b = AppendString(b, resp.Documentation)
	case resp.ProblemType != "":
		b = AppendString(b, resp.ProblemType)
	case c.TypePrefix == "":
		b = append(b, `"about:blank"`...)
	default:
		b = AppendString(b, c.TypePrefix+resp.Code)
	}
	b = appendMember(b, "title", title)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(resp.Status), 10)
	if resp.Message != title {
		b = appendMember(b, "detail", resp.Message)
	}
	if c.InstancePrefix != "" {
		b = appendMember(b, "instance", c.InstancePrefix+url.PathEscape(resp.RequestID))
	}
	b = appendMember(b, "code", resp.Code)
	b = appendMember(b, "param", resp.Param)
	extensions, _ := resp.Details.(map[string]any)
	if _, taken := extensions["request_id"]; c.RequestID && !taken {
		b = appendMember(b, "request_id", resp.RequestID)
	}
	b = appendFields(b, resp.Fields)
	return append(problem.AppendDetails(b, resp.Details, resp.AppendValue), '}')
}
