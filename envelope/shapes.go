package envelope

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/usher-go/usher/internal/jsontext"
	"github.com/usher-go/usher/internal/problem"
)

// Standard returns the shape with a status, a message and metadata:
//
//	{"status_code":200,"message":"OK","data":{...},
//	 "metadata":{"method":"GET","url":"/notes","execution_time_ms":3,
//	             "ip":"192.0.2.1","timestamp":"2026-01-02T15:04:05.678Z"}}
//
// Errors, and successes without data, have no "data". A page adds "pagination" after the
// data. Faulty fields add "errors":[{"field","message"}] after the message, and JSON that
// a wrapped handler wrote as an error adds "details" there. [usher.Error.Details] is
// omitted.
//
// The execution time is the number of whole milliseconds until the data was written. The
// address is "" if it is unknown. As the metadata describes the caller, keep such
// responses out of shared caches.
func Standard() Shape {
	return Shape{Before: standardBefore, After: standardAfter, Error: standardError}
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

func standardAfter(b []byte, resp *Response) []byte {
	b = appendPage(b, resp.Page)
	elapsed := resp.Elapsed()
	b = append(b, `,"metadata":{"method":`...)
	b = AppendString(b, cut(resp.Request().Method, maxMethod))
	b = append(b, `,"url":`...)
	b = resp.AppendURL(b)
	b = append(b, `,"execution_time_ms":`...)
	b = strconv.AppendInt(b, elapsed.Milliseconds(), 10)
	b = append(b, `,"ip":"`...)
	if ip := resp.ClientIP(); ip.IsValid() {
		b = ip.WithZone("").AppendTo(b)
	}
	b = append(b, `","timestamp":"`...)
	b = appendTime(b, resp.Start.Add(elapsed))
	return append(b, `"}}`...)
}

func standardError(b []byte, resp *Response) []byte {
	b = append(b, `{"status_code":`...)
	b = strconv.AppendInt(b, int64(resp.Status), 10)
	b = appendMember(b, "message", resp.Message)
	b = appendFields(b, resp.Fields)
	if resp.Original != nil {
		b = append(b, `,"details":`...)
		b = append(b, resp.Original...)
	}
	return standardAfter(b, resp)
}

// Data returns the shape with one member at the top:
//
//	{"data":{...}}
//	{"data":[...],"pagination":{"page":1,"limit":20,"total":41,"pages":3}}
//	{"error":{"code":"not_found","message":"Not Found","details":...}}
//
// Without data, "data" is null. The member "details" has the Details of the error, or
// else its faulty fields, or else the JSON that a wrapped handler wrote as an error;
// without any of these it is omitted. An error that asks the client to wait has the
// number of seconds as "retry_after", inside "error" and at the top.
func Data() Shape {
	return Shape{Before: dataBefore, After: dataAfter, Error: dataError, Constant: true}
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

func dataError(b []byte, resp *Response) []byte {
	b = append(b, `{"error":{"code":`...)
	b = AppendString(b, resp.Code)
	b = appendMember(b, "message", resp.Message)
	switch {
	case resp.Details != nil:
		b = append(b, `,"details":`...)
		b = resp.AppendValue(b, resp.Details)
	case len(resp.Fields) > 0:
		b = append(b, `,"details":`...)
		b = appendFieldList(b, resp.Fields)
	case resp.Original != nil:
		b = append(b, `,"details":`...)
		b = append(b, resp.Original...)
	}
	b = appendRetryAfter(b, resp.RetryAfter)
	b = append(b, '}')
	return append(appendRetryAfter(b, resp.RetryAfter), '}')
}

// Typed returns the shape with bare successes and typed errors:
//
//	{"error":{"type":"invalid_request_error","code":"missing_field",
//	          "message":"...","param":"name","request_id":"req-..."}}
//
// "param" is omitted if no parameter is at fault. If the catalogue has no type, the
// status determines it: authentication_error, forbidden_error, not_found_error,
// conflict_error, rate_limit_error, invalid_request_error for the rest of 4xx, and
// server_error. Faulty fields add "errors"; details are omitted.
func Typed() Shape { return Shape{Error: typedError} }

func typedError(b []byte, resp *Response) []byte {
	kind := resp.Type
	if kind == "" {
		kind = errorType(resp.Status)
	}
	b = append(b, `{"error":{"type":`...)
	b = AppendString(b, kind)
	b = appendMember(b, "code", resp.Code)
	b = appendMember(b, "message", resp.Message)
	b = appendMember(b, "param", resp.Param)
	b = appendFields(b, resp.Fields)
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

// Problem returns the shape with bare successes and problem details (RFC 9457):
//
//	{"type":"https://api.example.com/problems/rate_limited","title":"Too Many Requests",
//	 "status":429,"detail":"...","code":"rate_limited"}
//
// The type is that of the catalogue: an absolute URI, or else what follows typePrefix. If
// the catalogue has none, it is [usher.Error.Type], or else typePrefix followed by the
// code. Where typePrefix would be needed and is empty, the type is about:blank.
// Faulty fields become "errors". The entries of a map[string]any in [usher.Error.Details]
// become extension members, and any other details become "details". RFC 9457, section 3.2
// recommends that extension names consist of at least three letters, digits or
// underscores and start with a letter.
func Problem(typePrefix string) Shape {
	return Shape{ErrorType: "application/problem+json", Error: func(b []byte, resp *Response) []byte {
		return appendProblem(b, resp, typePrefix)
	}}
}

func appendProblem(b []byte, resp *Response, typePrefix string) []byte {
	title := http.StatusText(resp.Status)
	b = append(b, `{"type":`...)
	switch {
	case strings.Contains(resp.Type, ":"):
		b = AppendString(b, resp.Type)
	case resp.Type != "" && typePrefix != "":
		b = AppendString(b, typePrefix+resp.Type)
	case resp.ProblemType != "":
		b = AppendString(b, resp.ProblemType)
	case typePrefix == "":
		b = append(b, `"about:blank"`...)
	default:
		b = AppendString(b, typePrefix+resp.Code)
	}
	b = appendMember(b, "title", title)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(resp.Status), 10)
	if resp.Message != title {
		b = appendMember(b, "detail", resp.Message)
	}
	b = appendMember(b, "code", resp.Code)
	b = appendMember(b, "param", resp.Param)
	b = appendFields(b, resp.Fields)
	return append(problem.AppendDetails(b, resp.Details, resp.AppendValue), '}')
}

// Bare returns the shape without an envelope: bare successes and flat errors.
//
//	{"code":"not_found","message":"Not Found"}
//
// The members "param", "errors" and "details" follow if the error has them.
func Bare() Shape { return Shape{Error: bareError} }

func bareError(b []byte, resp *Response) []byte {
	b = append(b, `{"code":`...)
	b = AppendString(b, resp.Code)
	b = appendMember(b, "message", resp.Message)
	b = appendMember(b, "param", resp.Param)
	b = appendFields(b, resp.Fields)
	if resp.Details != nil {
		b = append(b, `,"details":`...)
		b = resp.AppendValue(b, resp.Details)
	}
	return append(b, '}')
}
