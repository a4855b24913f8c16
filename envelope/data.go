package envelope

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
