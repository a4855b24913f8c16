package envelope

import "github.com/usher-go/usher/internal/jsontext"

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
