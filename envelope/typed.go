package envelope

import "net/http"

// Typed returns the shape of the zero [TypedConfig].
func Typed() Shape { return TypedConfig{}.Shape() }

// A TypedConfig describes a shape with bare successes and typed errors:
//
//	{"error":{"type":"invalid_request_error","code":"missing_field",
//	          "message":"...","param":"name","request_id":"req-..."}}
//
// "param" is omitted if no parameter is at fault, and "doc_url" if the catalogue lists no
// page. If the catalogue has no type, the status determines it: authentication_error,
// forbidden_error, not_found_error, conflict_error, rate_limit_error,
// invalid_request_error for the rest of 4xx, and server_error. Faulty fields add "errors".
type TypedConfig struct {
	// Details adds "details" with [usher.Error.Details].
	Details bool
}

// Shape returns the shape that c describes.
func (c TypedConfig) Shape() Shape { return Shape{Error: c.error} }

func (c TypedConfig) error(b []byte, resp *Response) []byte {
	kind := resp.Type
	if kind == "" {
		kind = errorType(resp.Status)
	}
	b = append(b, `{"error":{"type":`...)
	b = AppendString(b, kind)
	b = appendMember(b, "code", resp.Code)
	b = appendMember(b, "message", resp.Message)
	b = appendMember(b, "param", resp.Param)
	b = appendMember(b, "doc_url", resp.Documentation)
	b = appendFields(b, resp.Fields)
	if c.Details {
		b = appendDetails(b, resp)
	}
	b = appendMember(b, "request_id", resp.RequestID)
	return append(b, `}}`...)
}

func errorType(status int) string {
	switch {
	case status >= 500:
		return "server_error"
	case status == http.StatusUnauthorized:
		return "authentication_error"
	case status == http.StatusForbidden:
		return "forbidden_error"
	case status == http.StatusNotFound:
		return "not_found_error"
	case status == http.StatusConflict:
		return "conflict_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	default:
		return "invalid_request_error"
	}
}
