package envelope

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/usher-go/usher/internal/jsontext"
	"github.com/usher-go/usher/internal/problem"
)

// Standard returns the shape of the zero [StandardConfig].
func Standard() Shape { return StandardConfig{}.Shape() }

// A StandardConfig describes a shape with a status, a message and metadata:
//
//	{"status_code":200,"message":"OK","data":{...},
//	 "metadata":{"request_id":"4hq2...","method":"GET","url":"/notes",
//	             "execution_time_ms":3,"timestamp":"2026-01-02T15:04:05.678Z"}}
//
//	{"status_code":400,"code":"validation_failed","message":"The request is not valid.",
//	 "errors":[{"field":"age","message":"is too small"}],"metadata":{...}}
//
// Errors, and successes without data, have no "data". A page adds "pagination" after the
// data. Errors have "code", and "param", "doc_url", "errors" with the faulty fields and
// "details" if there are any. The details are [usher.Error.Details], or else the JSON that
// a wrapped handler wrote as an error.
//
// The execution time lasts from when the envelope received the request to the end of the
// data. It is a number of milliseconds, rounded up and so at least 1: clients of this shape
// often read it as an integer. The timestamp is that end.
//
// As the metadata describes one request, keep such responses out of shared caches.
type StandardConfig struct {
	// ClientIP adds the address of the client to the metadata as "ip", which is "" if it is
	// unknown: see [Response.ClientIP].
	ClientIP bool
	// FractionalTime writes the execution time with three decimals, in microseconds rounded
	// up: 0.212.
	FractionalTime bool
	// OmitCode, OmitDetails and OmitRequestID leave out what a documented response does not
	// have: "code", "param" and "details", and "request_id".
	OmitCode, OmitDetails, OmitRequestID bool
}

// Shape returns the shape that c describes.
func (c StandardConfig) Shape() Shape {
	return Shape{Before: standardBefore, After: c.after, Error: c.error}
}

func standardBefore(b []byte, resp *Response) []byte {
	b = append(b, `{"status_code":`...)
	b = strconv.AppendInt(b, int64(resp.Status), 10)
	b = appendMember(b, "message", resp.Message)
	if !resp.NoData {
		b = append(b, `,"data":`...)
	}
	return b
}

func (c StandardConfig) after(b []byte, resp *Response) []byte {
	b = appendPage(b, resp.Page)
	elapsed := resp.Elapsed()
	b = append(b, `,"metadata":{`...)
	if !c.OmitRequestID {
		b = append(b, `"request_id":`...)
		b = append(AppendString(b, resp.RequestID), ',')
	}
	b = append(b, `"method":`...)
	b = AppendString(b, cut(resp.Request().Method, maxMethod))
	b = append(b, `,"url":`...)
	b = resp.AppendURL(b)
	b = append(b, `,"execution_time_ms":`...)
	if c.FractionalTime {
		b = appendThousandths(b, roundUp(elapsed, time.Microsecond))
	} else {
		b = strconv.AppendInt(b, roundUp(elapsed, time.Millisecond), 10)
	}
	if c.ClientIP {
		b = append(b, `,"ip":"`...)
		if ip := resp.ClientIP(); ip.IsValid() {
			b = ip.WithZone("").AppendTo(b)
		}
		b = append(b, '"')
	}
	b = append(b, `,"timestamp":"`...)
	b = appendTime(b, resp.Start.Add(elapsed))
	return append(b, `"}}`...)
}

func (c StandardConfig) error(b []byte, resp *Response) []byte {
	b = append(b, `{"status_code":`...)
	b = strconv.AppendInt(b, int64(resp.Status), 10)
	if !c.OmitCode {
		b = appendMember(b, "code", resp.Code)
	}
	b = appendMember(b, "message", resp.Message)
	if !c.OmitDetails {
		b = appendMember(b, "param", resp.Param)
	}
	b = appendMember(b, "doc_url", resp.Documentation)
	b = appendFields(b, resp.Fields)
	if !c.OmitDetails {
		b = appendDetails(b, resp)
	}
	return c.after(b, resp)
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

// roundUp returns d in units, rounded up, and at least 1.
func roundUp(d, unit time.Duration) int64 { return int64(max((d+unit-1)/unit, 1)) }

// appendThousandths appends n thousandths as a decimal number.
func appendThousandths(b []byte, n int64) []byte {
	b = strconv.AppendInt(b, n/1000, 10)
	n %= 1000
	return append(b, '.', byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
}

// Data returns the shape of the zero [DataConfig].
func Data() Shape { return DataConfig{}.Shape() }

// A DataConfig describes a shape with one member at the top:
//
//	{"data":{...}}
//	{"data":[...],"pagination":{"page":1,"limit":20,"total":41,"pages":3}}
//	{"error":{"code":"not_found","message":"Not Found","details":...}}
//
// Without data, "data" is null. The member "details" has the Details of the error, or
// else its faulty fields, or else the JSON that a wrapped handler wrote as an error;
// without any of these it is omitted. An error for which the catalogue lists a page has
// "doc_url". An error that asks the client to wait has the number of seconds as
// "retry_after", inside "error" and at the top.
type DataConfig struct {
	// Param and RequestID add "param", if a parameter is at fault, and "request_id" to
	// "error".
	Param, RequestID bool
}

// Shape returns the shape that c describes.
func (c DataConfig) Shape() Shape {
	return Shape{Before: dataBefore, After: dataAfter, Error: c.error, Constant: true}
}

func dataBefore(b []byte, resp *Response) []byte {
	if resp.NoData {
		return append(b, `{"data":null`...)
	}
	return append(b, `{"data":`...)
}

func dataAfter(b []byte, resp *Response) []byte {
	return append(appendPage(b, resp.Page), '}')
}

func (c DataConfig) error(b []byte, resp *Response) []byte {
	b = append(b, `{"error":{"code":`...)
	b = AppendString(b, resp.Code)
	b = appendMember(b, "message", resp.Message)
	if c.Param {
		b = appendMember(b, "param", resp.Param)
	}
	b = appendMember(b, "doc_url", resp.Documentation)
	if resp.Details == nil && len(resp.Fields) > 0 {
		b = append(b, `,"details":`...)
		b = appendFieldList(b, resp.Fields)
	} else {
		b = appendDetails(b, resp)
	}
	b = appendRetryAfter(b, resp.RetryAfter)
	if c.RequestID {
		b = appendMember(b, "request_id", resp.RequestID)
	}
	b = append(b, '}')
	return append(appendRetryAfter(b, resp.RetryAfter), '}')
}

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

// Detail returns the shape with bare successes in which an error is one text: the
// message, followed by the faulty fields:
//
//	{"detail":"Not Found"}
//	{"detail":"The request is not valid. name: is required; age: is too small"}
func Detail() Shape { return Shape{Error: detailError} }

func detailError(b []byte, resp *Response) []byte {
	b = append(b, `{"detail":"`...)
	b = jsontext.AppendEscaped(b, resp.Message)
	for i, f := range resp.Fields {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, ' ')
		b = jsontext.AppendEscaped(b, f.Name)
		b = append(b, ": "...)
		b = jsontext.AppendEscaped(b, f.Message)
	}
	return append(b, `"}`...)
}

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

// Bare returns the shape of the zero [BareConfig].
func Bare() Shape { return BareConfig{}.Shape() }

// A BareConfig describes a shape without an envelope: bare successes and flat errors.
//
//	{"code":"not_found","message":"Not Found"}
//
// The members "param", "doc_url", "errors" and "details" follow if the error has them.
type BareConfig struct {
	// RequestID adds "request_id".
	RequestID bool
}

// Shape returns the shape that c describes.
func (c BareConfig) Shape() Shape { return Shape{Error: c.error} }

func (c BareConfig) error(b []byte, resp *Response) []byte {
	b = append(b, `{"code":`...)
	b = AppendString(b, resp.Code)
	b = appendMember(b, "message", resp.Message)
	b = appendMember(b, "param", resp.Param)
	b = appendMember(b, "doc_url", resp.Documentation)
	b = appendFields(b, resp.Fields)
	b = appendDetails(b, resp)
	if c.RequestID {
		b = appendMember(b, "request_id", resp.RequestID)
	}
	return append(b, '}')
}
