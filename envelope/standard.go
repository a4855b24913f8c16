package envelope

import (
	"strconv"
	"time"
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

// roundUp returns d in units, rounded up, and at least 1.
func roundUp(d, unit time.Duration) int64 { return int64(max((d+unit-1)/unit, 1)) }

// appendThousandths appends n thousandths as a decimal number.
func appendThousandths(b []byte, n int64) []byte {
	b = strconv.AppendInt(b, n/1000, 10)
	n %= 1000
	return append(b, '.', byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
}
