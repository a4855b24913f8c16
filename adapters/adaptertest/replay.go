package adaptertest

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
)

// checkReplays checks that a replay within an envelope is what its own request would have
// got, with its own request ID, however the handler responds.
func checkReplays(b *bench) error {
	show := func(b []byte, resp *envelope.Response) []byte {
		return fmt.Appendf(b, `"id":%q,"status":%d,"code":%q,"message":%q`, resp.RequestID, resp.Status, resp.Code, resp.Message)
	}
	env := must(envelope.New(envelope.Config{Wrap: true, RequestID: envelope.RequestIDFromHeader("X-Request-Id"), Shape: envelope.Shape{
		Before: func(b []byte, resp *envelope.Response) []byte {
			return append(show(append(b, '{'), resp), `,"data":`...)
		},
		After: func(b []byte, _ *envelope.Response) []byte { return append(b, '}') },
		Error: func(b []byte, resp *envelope.Response) []byte { return append(show(append(b, '{'), resp), '}') },
	}}))(b)
	once := must(idempotency.New(idempotency.Config{
		DangerouslyAllowAnonymous: true, Profile: func(int) idempotency.Outcome { return idempotency.Keep },
	}))(b)
	refused := &usher.Error{Status: 402, Code: "no_credit", Message: "Pay first."}
	handlers := map[string]func(Context) error{
		"native":     func(c Context) error { return c.JSON(201, 1) },
		"text":       func(c Context) error { return c.String(422, "text") },
		"empty":      func(c Context) error { return c.Status(404) },
		"value":      func(c Context) error { envelope.For(c.Writer(), c.Request()).Created("/1", 1); return nil },
		"message":    func(c Context) error { envelope.For(c.Writer(), c.Request()).Message("made"); return c.JSON(201, 1) },
		"fail":       func(c Context) error { usher.Fail(c.Writer(), c.Request(), refused); return nil },
		"returned":   func(c Context) error { return c.Return(refused) },
		"private":    func(c Context) error { return c.Return(errors.New("private")) },
		"frameworks": func(c Context) error { return c.Fail(418) },
		"late": func(c Context) error {
			c.Writer().Header().Set("Content-Type", "application/json")
			c.Writer().WriteHeader(203)
			usher.Respond(c.Writer(), c.Request(), usher.Reply{Code: "made", Message: "It is made.", Data: 1})
			return nil
		},
		"late-failure": func(c Context) error {
			c.Writer().Header().Set("Content-Type", "text/plain")
			c.Writer().WriteHeader(402)
			usher.Fail(c.Writer(), c.Request(), refused)
			return nil
		},
		"untouched": func(c Context) error { envelope.For(c.Writer(), c.Request()).Untouched(); return c.JSON(200, 1) },
	}
	var errs []error
	for name, handler := range handlers {
		runs := 0
		c := b.serve(App{Failures: true, Use: []Step{{Usher: env}}, Group: Group{
			Prefix: "/group", Use: []Step{{Usher: once}}, Routes: []Route{post("/it", func(c Context) error {
				runs++
				return handler(c)
			})},
		}})
		ask := func(key, id string) response {
			return c.do(http.MethodPost, "/group/it", "{}", "Idempotency-Key: "+name+key, "X-Request-Id: "+id)
		}
		first, again, want := ask("1", "one"), ask("1", "two"), ask("2", "two")
		if err := all(
			same("status of the first response", first.status, want.status),
			same("status of the replay", again.status, want.status),
			same("body of the replay", again.body, want.body),
			same("type of the replay", again.header.Get("Content-Type"), want.header.Get("Content-Type")),
			same("ID of the replay", again.header.Get("X-Request-Id"), "two"),
			same("replayed", again.header.Get("Idempotency-Replayed")+want.header.Get("Idempotency-Replayed"), "true"),
			same("runs", runs, 2),
		); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
