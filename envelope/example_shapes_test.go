package envelope_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// showShape prints the responses with the shape to a request for a note and to one with a
// faulty field.
func showShape(shape envelope.Shape, note any) {
	env := usher.Must(envelope.New(envelope.Config{Shape: shape, RequestID: func(*http.Request) string { return "7" }}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes/1", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(note) })
	mux.HandleFunc("POST /notes", func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Invalid(usher.Field{Name: "title", Message: "is required"})
	})
	h := env.Wrap(mux)
	show(h, http.MethodGet, "/notes/1")
	show(h, http.MethodPost, "/notes")
}

// The errors of Google's APIs (AIP-193) are a google.rpc.Status. Successes are bare.
func ExampleShape_googleStatus() {
	canonical := map[int]string{
		400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
		409: "ABORTED", 429: "RESOURCE_EXHAUSTED", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
	}
	shape := envelope.Shape{Error: func(b []byte, resp *envelope.Response) []byte {
		name := canonical[resp.Status]
		switch {
		case name == "" && resp.Status >= 500:
			name = "INTERNAL"
		case name == "":
			name = "FAILED_PRECONDITION"
		}
		type violation struct {
			Field       string `json:"field"`
			Description string `json:"description"`
		}
		details := []map[string]any{{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": strings.ToUpper(resp.Code), "domain": "notes.example.com",
		}}
		if len(resp.Fields) > 0 {
			var violations []violation
			for _, f := range resp.Fields {
				violations = append(violations, violation{f.Name, f.Message})
			}
			details = append(details, map[string]any{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations})
		}
		b = append(b, `{"error":{"code":`...)
		b = strconv.AppendInt(b, int64(resp.Status), 10)
		b = append(b, `,"message":`...)
		b = envelope.AppendString(b, resp.Message)
		b = append(b, `,"status":`...)
		b = envelope.AppendString(b, name)
		b = append(b, `,"details":`...)
		b = resp.AppendValue(b, details)
		return append(b, `}}`...)
	}}
	showShape(shape, map[string]string{"title": "Milk"})
	// Output:
	// 200 {"title":"Milk"}
	// 400 {"error":{"code":400,"message":"The request is not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"notes.example.com","reason":"VALIDATION_FAILED"},{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"title","description":"is required"}]}]}}
}

// JSON:API has a media type of its own, and a list of errors that point into the request.
func ExampleShape_jsonAPI() {
	const mediaType = "application/vnd.api+json"
	object := func(b []byte, resp *envelope.Response, detail, pointer string) []byte {
		b = append(b, `{"id":`...)
		b = envelope.AppendString(b, resp.RequestID)
		b = append(b, `,"status":"`...)
		b = strconv.AppendInt(b, int64(resp.Status), 10)
		b = append(b, `","code":`...)
		b = envelope.AppendString(b, resp.Code)
		b = append(b, `,"title":`...)
		b = envelope.AppendString(b, http.StatusText(resp.Status))
		b = append(b, `,"detail":`...)
		b = envelope.AppendString(b, detail)
		if pointer != "" {
			b = append(b, `,"source":{"pointer":`...)
			b = append(envelope.AppendString(b, pointer), '}')
		}
		return append(b, '}')
	}
	shape := envelope.Shape{
		Type: mediaType, ErrorType: mediaType, Constant: true,
		Before: func(b []byte, resp *envelope.Response) []byte {
			if resp.NoData {
				return append(b, `{"data":null`...)
			}
			return append(b, `{"data":`...)
		},
		After: func(b []byte, resp *envelope.Response) []byte {
			if resp.Page != nil {
				b = append(b, `,"meta":{"total":`...)
				b = append(strconv.AppendInt(b, int64(resp.Page.Total), 10), '}')
			}
			return append(b, '}')
		},
		Error: func(b []byte, resp *envelope.Response) []byte {
			b = append(b, `{"errors":[`...)
			if len(resp.Fields) == 0 {
				b = object(b, resp, resp.Message, "")
			}
			for i, f := range resp.Fields {
				if i > 0 {
					b = append(b, ',')
				}
				b = object(b, resp, f.Message, "/data/attributes/"+strings.ReplaceAll(f.Name, ".", "/"))
			}
			return append(b, `]}`...)
		},
	}
	showShape(shape, json.RawMessage(`{"type":"notes","id":"1","attributes":{"title":"Milk"}}`))
	// Output:
	// 200 {"data":{"type":"notes","id":"1","attributes":{"title":"Milk"}}}
	// 400 {"errors":[{"id":"7","status":"400","code":"validation_failed","title":"Bad Request","detail":"is required","source":{"pointer":"/data/attributes/title"}}]}
}

// A list with cursors needs no number of pages: the page is the data, and the address of the
// next one is in the header field Link (RFC 8288) for clients that do not know the body.
func ExampleWriter_Value_cursor() {
	type page struct {
		Items []string `json:"items"`
		Next  string   `json:"next_cursor,omitempty"`
	}
	notes := []string{"Milk", "Bread", "Salt"}
	const limit = 2
	env := usher.Must(envelope.New(envelope.Config{Shape: envelope.Bare()}))
	list := env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.FormValue("cursor"))
		if after < 0 || after > len(notes) {
			envelope.For(w, r).Invalid(usher.Field{Name: "cursor", Message: "is unknown"})
			return
		}
		p := page{Items: notes[after:min(after+limit, len(notes))]}
		if end := after + limit; end < len(notes) {
			p.Next = strconv.Itoa(end) // a real cursor is opaque, and may be signed
			w.Header().Set("Link", `</notes?cursor=`+p.Next+`>; rel="next"`)
		}
		envelope.For(w, r).Value(p)
	}))
	show(list, http.MethodGet, "/notes")
	show(list, http.MethodGet, "/notes?cursor=2")
	show(list, http.MethodGet, "/notes?cursor=9")
	// Output:
	// 200 {"items":["Milk","Bread"],"next_cursor":"2"}
	// 200 {"items":["Salt"]}
	// 400 {"code":"validation_failed","message":"The request is not valid.","errors":[{"field":"cursor","message":"is unknown"}]}
}
