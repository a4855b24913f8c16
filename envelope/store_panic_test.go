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

// A store that panics is a failure with a cause. The log shows the panic as it shows that of
// a handler.
func TestThePanicOfAStoreIsLogged(t *testing.T) {
	var text bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil)))
	defer slog.SetDefault(before)
	e, err := envelope.New(envelope.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := e.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := guard.Run(func() error { panic("no pool") })
		usher.Fail(w, r, &usher.Error{Status: 503, Code: usher.CodeServiceUnavailable, Cause: err})
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil))
	if got := text.String(); !strings.Contains(got, `panic="no pool"`) || !strings.Contains(got, "envelope/store_panic_test.go:") {
		t.Errorf("logged %q, want the text and the stack", got)
	}
}
