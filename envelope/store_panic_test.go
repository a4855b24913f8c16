package envelope_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/internal/guard"
)

// A store that panics is a failure with a cause. The log does not have the value of the
// panic, which may hold anything, just as for a handler.
func TestTheValueOfAPanicOfAStoreIsNotLogged(t *testing.T) {
	var text bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil)))
	defer slog.SetDefault(before)
	e, err := envelope.New(envelope.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := e.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := guard.Run(func() error { panic("secret") })
		usher.Fail(w, r, &usher.Error{Status: 503, Code: usher.CodeServiceUnavailable, Cause: err})
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil))
	if got := text.String(); strings.Contains(got, "secret") || !strings.Contains(got, "panic=string") || !strings.Contains(got, "store_panic_test.go") {
		t.Errorf("logged %q, want the type and the stack alone", got)
	}
}
