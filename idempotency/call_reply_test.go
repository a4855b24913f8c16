package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// The outcome of a call follows from its error as that of a request from its status.
func TestTheOutcomeOfACall(t *testing.T) {
	const ranAgain = "runs again"
	refusal := func(status int) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) {
			return nil, fmt.Errorf("wrapped: %w", &usher.Error{Status: status, Code: "refused"})
		}
	}
	decide := func(o idempotency.Outcome, err error) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) {
			idempotency.From(ctx).SetOutcome(o)
			return []byte("secret"), err
		}
	}
	private := errors.New("private")
	for name, c := range map[string]struct {
		profile idempotency.Profile
		run     func(context.Context) ([]byte, error)
		again   string // a code, or ranAgain
		status  int
	}{
		"an error that is kept":                      {nil, refusal(402), "refused", 402},
		"an error of the client's":                   {nil, refusal(404), "refused", 404},
		"an error that is released":                  {nil, refusal(503), ranAgain, 0},
		"an error without a status":                  {nil, func(context.Context) ([]byte, error) { return nil, private }, unknown, 409},
		"which a profile keeps":                      {idempotency.ProfileStripe, func(context.Context) ([]byte, error) { return nil, private }, usher.CodeInternal, 500},
		"which a profile releases":                   {idempotency.ProfileReleaseServerErrors, func(context.Context) ([]byte, error) { return nil, private }, ranAgain, 0},
		"a panic":                                    {nil, func(context.Context) ([]byte, error) { panic("x") }, unknown, 409},
		"a panic that a profile releases":            {idempotency.ProfileKeepSuccess, func(context.Context) ([]byte, error) { panic("x") }, ranAgain, 0},
		"a released success":                         {nil, decide(idempotency.Release, nil), ranAgain, 0},
		"a released error":                           {nil, decide(idempotency.Release, private), ranAgain, 0},
		"a success that is not kept":                 {nil, decide(idempotency.Forget, nil), usher.CodeIdempotencyResponseNotKept, 409},
		"an error of which only the status is kept":  {nil, decide(idempotency.KeepStatus, &usher.Error{Status: 402, Code: "refused"}), "", 402},
		"a success of which only the status is kept": {nil, decide(idempotency.KeepStatus, nil), "", 0},
		"an error whose details cannot be stored": {nil, func(context.Context) ([]byte, error) {
			return nil, &usher.Error{Status: 402, Code: "refused", Details: map[string]any{"a": func() {}}}
		}, "refused", 402},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMiddleware(t, idempotency.Config{Profile: c.profile})
			f := &consumer{next: c.run}
			_, _, first := execute(m, message(), f.run)
			if want := func() error { defer func() { _ = recover() }(); _, err := c.run(context.Background()); return err }(); want != nil && first.Error() != want.Error() {
				t.Errorf("the first call got %v, want %v", first, want)
			}
			reply, replayed, err := execute(m, message(), f.run)
			switch {
			case c.again == ranAgain:
				if f.n != 2 || replayed {
					t.Errorf("%d executions, replayed: %v, %v", f.n, replayed, err)
				}
				return
			case c.status == 0:
				wantReply(t, reply, replayed, err, "", true)
			default:
				wantCode(t, err, c.status, c.again)
				if want := c.status != 409; replayed != want {
					t.Errorf("replayed: %v", replayed)
				}
			}
			if f.n != 1 {
				t.Errorf("%d executions", f.n)
			}
		})
	}
}

// An error that is replayed is written as the first one, and has no private part.
func TestAnErrorThatIsReplayedIsWrittenAsTheFirst(t *testing.T) {
	type detail struct {
		Text string `json:"text"`
		N    int64  `json:"n"`
	}
	for name, e := range map[string]usher.Error{
		"little": {Status: 402},
		"all": {
			Status: 422, Code: "no_money", Type: "https://example.com/no_money", Message: "There is no <money>.", Param: "amount",
			Fields:     []usher.Field{{Name: "a", Message: "b"}},
			Details:    map[string]any{"balance": 9007199254740993, "rate": 0.1, "list": []string{"a"}, "more": detail{"x & y", 1 << 60}},
			RetryAfter: 90 * time.Second, Challenges: []string{`Basic realm="a"`}, Cause: errors.New("private"),
		},
		"a struct":          {Status: 400, Details: detail{"a", 1}},
		"a list":            {Status: 400, Details: []string{"a", "b"}},
		"an impossible one": {Status: 200, Code: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			written := func(err error) string {
				w := httptest.NewRecorder()
				usher.Fail(w, httptest.NewRequest(http.MethodPost, "/", nil), err)
				return fmt.Sprint(w.Code, w.Header(), w.Body)
			}
			m := newMiddleware(t, idempotency.Config{Profile: idempotency.ProfileStripe})
			f := &consumer{next: func(ctx context.Context) ([]byte, error) {
				idempotency.From(ctx).SetOutcome(idempotency.Keep)
				return nil, &e
			}}
			_, _, first := execute(m, message(), f.run)
			if !errors.Is(first, &e) {
				t.Errorf("the first error is %v", first)
			}
			_, replayed, again := execute(m, message(), f.run)
			if got, want := written(again), written(&e); got != want || !replayed {
				t.Errorf("got %s, replayed: %v, want %s", got, replayed, want)
			}
			if strings.Contains(again.Error(), "private") || f.n != 1 {
				t.Errorf("got %v, %d executions", again, f.n)
			}
		})
	}
}

// A reply belongs to its caller.
func TestTheReplyOfACallBelongsToItsCaller(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{})
	shared := []byte("done")
	f := func(context.Context) ([]byte, error) { return shared, nil }
	payload := []byte("tea")
	c := message(func(c *idempotency.Call) { c.Payload = payload })
	for range 3 {
		c.Payload = bytes.Clone([]byte("tea"))
		reply, _, err := m.Execute(t.Context(), c, f)
		if string(reply) != "done" || err != nil {
			t.Errorf("got %q, %v", reply, err)
		}
		reply = append(reply, "!"...)
		c.Payload[0] = 'T'
		_ = reply
	}
	shared[0] = 'D'
	reply, replayed, err := execute(m, message(), f)
	wantReply(t, reply, replayed, err, "done", true)
}

// A reply that is too long to be stored is returned all the same, and not again.
func TestALongReplyOfACall(t *testing.T) {
	m := newMiddleware(t, idempotency.Config{MaxResponse: 8})
	f := func(context.Context) ([]byte, error) { return []byte("123456789"), nil }
	reply, replayed, err := execute(m, message(), f)
	wantReply(t, reply, replayed, err, "123456789", false)
	_, _, err = execute(m, message(), f)
	wantCode(t, err, 409, usher.CodeIdempotencyResponseNotKept)
}
