package envelope

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
