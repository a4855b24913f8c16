package idempotency_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
)

// replayOf returns a handler that replays b to every request.
func replayOf(tb testing.TB, b []byte) http.Handler {
	idempotency.Seal(b, keyOf(tb, post("/", "")))
	store := constant{idempotency.Record{State: idempotency.StateDone, Payload: b}}
	return newMiddleware(tb, idempotency.Config{Store: store, OnError: func(context.Context, error) {}}).Wrap(new(counting))
}

// A record whose sum is right may still have been written wrong.
func TestARecordThatWasWrittenWrongIsAnError(t *testing.T) {
	head := func(status int) []byte { return idempotency.AppendHead(nil, status, nil, nil, nil) }
	withForm := func(status int, form, body string) []byte {
		b := append(head(status), form...)
		idempotency.SetForm(b, len(form))
		return append(b, body...)
	}
	withHeader := func(header string) []byte {
		b := append(head(201), header...)
		binary.BigEndian.PutUint32(b[4:], uint32(len(header)))
		return b
	}
	for name, b := range map[string][]byte{
		"a form of no kind":                    withForm(201, "\xff", "{}"),
		"the form of an error, with a success": withForm(201, "\x02\xf4\x03", "{}"),
		"a header without its last value":      withHeader("\x04Etag"),
		"a header that is cut":                 withHeader("\x04Etag\x09a"),
		"a header whose name is cut":           withHeader("\x04Et"),
	} {
		t.Run(name, func(t *testing.T) {
			wantFailure(t, do(replayOf(t, b), post("/", "")), 500, usher.CodeIdempotencyRecordUnreadable)
		})
	}
}

// What must not be replayed is not, whatever an earlier version has stored.
func TestAStoredFieldThatBelongsToTheFirstExchangeIsNotReplayed(t *testing.T) {
	b := idempotency.AppendHead(nil, 202, http.Header{"Etag": {`"a"`}, "Retry-After": {"7"}}, []string{"Etag", "Retry-After"}, nil)
	if w := do(replayOf(t, slices.Clone(b)), post("/", "")); w.Code != 202 || w.Header().Get("Retry-After") != "7" {
		t.Errorf("202 is replayed as %d with %v", w.Code, w.Header())
	}
	binary.BigEndian.PutUint16(b[2:], 409)
	if w := do(replayOf(t, b), post("/", "")); w.Code != 409 || w.Header().Get("Retry-After") != "" || w.Header().Get("Etag") != `"a"` {
		t.Errorf("409 is replayed as %d with %v", w.Code, w.Header())
	}
}

// A middleware around a replay may add values to any field.
func TestTheFieldsOfAReplayAreIndependent(t *testing.T) {
	h := newMiddleware(t, idempotency.Config{}).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"Allow", "Content-Type", "Etag", "Link", "Location", "Vary"} {
			w.Header()[name] = []string{name + " 1", name + " 2"}
		}
		w.Header()["Content-Language"] = []string{"en"}
		w.WriteHeader(201)
	}))
	do(h, post("/", ""))
	again := do(h, post("/", "")).Header()
	want := again.Clone()
	for name := range again {
		again[name] = append(again[name], "more of "+name)
	}
	for name, values := range want {
		if got := again[name]; !slices.Equal(got, append(values, "more of "+name)) {
			t.Errorf("%s: %q, want %q and one more", name, got, values)
		}
	}
	if len(want) != 8 {
		t.Errorf("the replay has %v", want)
	}
}

// A client that announces a long body and sends little costs little.
func TestABodyTakesRoomForWhatHasArrived(t *testing.T) {
	const requests, announced = 100, 1 << 20
	h := newMiddleware(t, idempotency.Config{}).Wrap(new(counting))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range requests {
		w := do(h, post("/", "", key(fmt.Sprint(i)), func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(&failing{[]byte("x"), io.ErrUnexpectedEOF}), announced
		}))
		wantFailure(t, w, 400, usher.CodeBodyUnreadable)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > requests*announced/10 {
		t.Errorf("%d requests took %d bytes", requests, n)
	}
}
