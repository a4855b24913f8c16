package idempotency_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// telling is a shape that shows everything that a shape can know of a request.
func telling() envelope.Shape {
	metadata := func(b []byte, resp *envelope.Response) []byte {
		return fmt.Appendf(b, `"status":%d,"code":%q,"type":%q,"message":%q,"page":%v,"id":%q,"at":%q,"ip":%q,"agent":%q`,
			resp.Status, resp.Code, resp.Type, resp.Message, resp.Page != nil, resp.RequestID,
			resp.Start.Format(time.RFC3339), resp.ClientIP(), resp.Request().UserAgent())
	}
	return envelope.Shape{
		Before: func(b []byte, resp *envelope.Response) []byte {
			b = append(metadata(append(b, '{'), resp), `,"no_data":`...)
			return append(fmt.Append(b, resp.NoData), `,"data":[`...)
		},
		After: func(b []byte, resp *envelope.Response) []byte {
			return append(metadata(append(b, `],"after":{`...), resp), "}}"...)
		},
		Error: func(b []byte, resp *envelope.Response) []byte {
			b = metadata(append(b, '{'), resp)
			b = fmt.Appendf(b, `,"problem":%q,"param":%q,"fields":%q,"original":%q,"details":`, resp.ProblemType, resp.Param, resp.Fields, resp.Original)
			return append(resp.AppendValue(b, resp.Details), '}')
		},
		ErrorType: "application/vnd.error+json",
	}
}

var everyShape = map[string]envelope.Shape{
	"standard": envelope.Standard(), "data": envelope.Data(), "typed": envelope.Typed(), "detail": envelope.Detail(),
	"problem": envelope.Problem("https://errors.example/"), "bare": envelope.Bare(), "one of the service": telling(),
}

type purchase struct {
	ID   int    `json:"id"`
	Note string `json:"note,omitempty"`
}

// begun sends a status before next responds.
func begun(status int, contentType string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		next(w, r)
	}
}

func fails(err error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, err) }
}

func responds(reply usher.Reply) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { usher.Respond(w, r, reply) }
}

var full = &usher.Error{
	Status: 422, Code: "declined", Type: "https://errors.example/own", Message: `the card "<1>" & its owner` + "\u2028", Param: "card",
	Fields:  []usher.Field{{Name: "card", Message: "is declined"}, {Name: "cvc", Message: ""}},
	Details: purchase{7, "<held>"}, Cause: errors.New("private"),
}

func withDetails(v any) *usher.Error {
	e := *full
	e.Details = v
	return &e
}

// What a handler can do within an envelope. Each is named by how it responds.
var handlers = map[string]http.HandlerFunc{
	"Value":                  func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(purchase{ID: 7, Note: "<&>"}) },
	"Value, nil":             func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(nil) },
	"Value, long":            func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(strings.Repeat("long ", 2000)) },
	"Value with a status":    func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Status(202).Value(1) },
	"Value with a message":   func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Message("made").Value(1) },
	"Value of a bad status":  func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Status(404).Value(1) },
	"Value that has no JSON": func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(func() {}) },
	"List": func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).List([]int{1, 2}, usher.Page{Number: 2, Limit: 2, Total: 9})
	},
	"List, nil":               func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).List(nil, usher.Page{Number: -1}) },
	"Created":                 func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Created("/orders/7", purchase{ID: 7}) },
	"NoContent":               func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).NoContent() },
	"Invalid":                 func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Invalid(full.Fields...) },
	"Respond with a code":     responds(usher.Reply{Status: 201, Code: "order_made", Data: []byte("x")}),
	"Respond with all":        responds(usher.Reply{Status: 203, Code: "none", Message: "own", Data: []purchase{}, Page: &usher.Page{Number: 1, Limit: 1}}),
	"Respond without data":    responds(usher.Reply{Code: "order_made"}),
	"Respond 205":             responds(usher.Reply{Status: 205, Data: 1}),
	"Respond 404":             responds(usher.Reply{Status: 404, Data: 1}),
	"Fail":                    fails(full),
	"Fail, empty":             fails(&usher.Error{Status: 402}),
	"Fail, mapped":            fails(&usher.Error{Status: 404, Code: "no_order"}),
	"Fail, without a message": fails(&usher.Error{Status: 410, Code: "gone_for_good"}),
	"Fail, private":           fails(errors.New("private")),
	"Fail, 418 and a map":     fails(withDetails(map[string]any{"b": 1, "a": []any{"<x>", nil, 1e300}, "status": "taken"})),
	"Fail, an empty map":      fails(withDetails(map[string]any{})),
	"Fail, a nil map":         fails(withDetails(map[string]any(nil))),
	"Fail, a nil pointer":     fails(withDetails((*purchase)(nil))),
	"Fail, a text":            fails(withDetails("text")),
	"Fail, a bad text":        fails(withDetails("\xff")),
	"Fail, raw JSON":          fails(withDetails(json.RawMessage(`{ "a": "<>" }`))),
	"usher.NotFound":          usher.NotFound,
	"plain JSON":              begun(201, "application/json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, ` {"id":7}`) }),
	"plain JSON, a message": func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Message("made")
		begun(201, "application/json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[7]") })(w, r)
	},
	"an empty body, a message": func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Message("made")
		w.Header().Set("Content-Type", "application/json")
	},
	"plain text, a message": func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Message("made")
		_, _ = io.WriteString(w, "text")
	},
	"an error in text": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such order", 404) },
	"an error in JSON": begun(422, "application/json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"why":1}`) }),
	"a status, Value":  begun(201, "application/json", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(purchase{ID: 7}) }),
	"a status, Value, message": begun(201, "application/json", func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Message("made").Value(purchase{ID: 7})
	}),
	"a status, List": begun(203, "application/json", func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).List([]int{1}, usher.Page{Number: 1, Limit: 1, Total: 1})
	}),
	"a status, Respond":       begun(201, "application/json", responds(usher.Reply{Status: 200, Code: "order_made", Data: 1})),
	"a status, no data":       begun(201, "application/json", responds(usher.Reply{Code: "order_made", Message: "made"})),
	"a status of text, Value": begun(201, "text/plain", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(purchase{ID: 7}) }),
	"204, Value":              begun(204, "application/json", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(purchase{ID: 7}) }),
	"303, Value":              begun(303, "application/json", func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Value(purchase{ID: 7}) }),
	"a status, Value, more": begun(201, "application/json", func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Value(purchase{ID: 7})
		_, _ = io.WriteString(w, "\n")
	}),
	"a status, Fail":         begun(404, "text/plain", fails(full)),
	"a status of JSON, Fail": begun(404, "application/json", fails(withDetails(map[string]any{"a": 1}))),
	"a status of PDF, Fail":  begun(404, "application/pdf", fails(full)),
	"a status, Fail, more":   begun(404, "text/plain", func(w http.ResponseWriter, r *http.Request) { usher.Fail(w, r, full); _, _ = io.WriteString(w, "more") }),
	"Untouched": func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Untouched()
		begun(201, "application/json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":1}`) })(w, r)
	},
	"Untouched, an error": envelope.Untouched(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 404) })).ServeHTTP,
	"Untouched, Value": func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Untouched()
		envelope.For(w, r).Value(1)
	},
	"through a timeout": http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { envelope.For(w, r).Created("/7", 1) }), time.Minute, "").ServeHTTP,
	"nothing":           func(http.ResponseWriter, *http.Request) {},
}

var catalogue = envelope.Catalogue{
	Codes: map[string]envelope.Entry{
		"order_made": {Status: 202, Code: "ORDER", Message: "The order is made.", Type: "order"},
		"no_order":   {Status: 410, Code: "NO_ORDER", Message: "There is no such order."},
		"declined":   {Type: "card_error"},
	},
	Statuses: map[int]envelope.Entry{402: {Code: "PAY", Message: "Pay first."}, 201: {Message: "It exists."}, 422: {Type: "semantic"}},
}

func callers(name, address string) func(*http.Request) {
	return func(r *http.Request) {
		r.RemoteAddr = address
		r.Header.Set("X-Request-Id", name)
		r.Header.Set("User-Agent", name)
	}
}

// keep is a profile that stores every response.
func keep(int) idempotency.Outcome { return idempotency.Keep }
