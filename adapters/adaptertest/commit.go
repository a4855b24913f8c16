package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// checkCommitted checks that the transaction of a handler is committed if its response is
// kept, and rolled back if not, whichever of the router's methods the handler responds
// with; and that nothing of the response arrives if the commit fails.
func checkCommitted(b *bench) error {
	tests := []struct {
		name      string
		respond   func(Context) error
		status    int
		body      string // a part of it
		committed bool
	}{
		{"JSON", func(c Context) error { return c.JSON(http.StatusCreated, "ordered") }, 201, "ordered", true},
		{"text", func(c Context) error { return c.String(http.StatusOK, "ordered") }, 200, "ordered", true},
		{"a status", func(c Context) error { return c.Status(http.StatusAccepted) }, 202, "", true},
		{"no body", func(c Context) error { return c.Status(http.StatusNoContent) }, 204, "", true},
		{"usher.Respond", func(c Context) error {
			usher.Respond(c.Writer(), c.Request(), usher.Reply{Data: "ordered"})
			return nil
		}, 200, "ordered", true},
		{"an error that is kept", func(c Context) error { return c.Return(&usher.Error{Status: 402, Code: "refused"}) }, 402, "refused", true},
		{"an error that is released", func(c Context) error { return c.Return(&usher.Error{Status: 503, Code: "refused"}) }, 503, "refused", false},
		{"a private error", func(c Context) error { return c.Return(errors.New("private")) }, 500, "", false},
	}
	var errs []error
	for _, tt := range tests {
		for _, fails := range []bool{false, true} {
			var committed, rolledBack atomic.Int32
			once := must(idempotency.New(idempotency.Config{
				DangerouslyAllowAnonymous: true, OnError: func(context.Context, error) {},
			}))(b)
			c := b.serve(App{
				Failures: true,
				Group: Group{Prefix: "/orders", Use: []Step{{Usher: once}}, Routes: []Route{post("/", func(c Context) error {
					err := idempotency.From(c.Request().Context()).Commit(c.Request().Context(), func(context.Context, idempotency.Completion) error {
						if fails {
							return errors.New("private")
						}
						committed.Add(1)
						return nil
					}, func() { rolledBack.Add(1) })
					if err != nil {
						return err
					}
					c.Writer().Header().Set("Order", "7")
					return tt.respond(c)
				})}},
			})
			a := c.do(http.MethodPost, "/orders/", "{}", "Idempotency-Key: k")
			want := tt.committed && !fails
			status, body, order := tt.status, tt.body, "7"
			if fails && tt.committed {
				status, body, order = 500, "", ""
			}
			err := all(
				same("status", a.status, status),
				same("the body has "+body, strings.Contains(a.body, body), true),
				same("the body is that of the handler", strings.Contains(a.body, "ordered"), body == "ordered"),
				same("Order", a.header.Get("Order"), order),
				same("committed", committed.Load() == 1, want),
				same("rolled back", rolledBack.Load() == 1, !want),
			)
			if want {
				again := c.do(http.MethodPost, "/orders/", "{}", "Idempotency-Key: k")
				err = all(err, same("status of the retry", again.status, a.status), same("body of the retry", again.body, a.body),
					same("commits", committed.Load(), 1))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s, the commit fails %v: %w", tt.name, fails, err))
			}
		}
	}
	return errors.Join(errs...)
}
