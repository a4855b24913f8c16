package report_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/report"
)

var errStore = errors.New("the store is down")

// logged returns the lines that f logs.
func logged(t *testing.T, f func()) []string {
	t.Helper()
	var text bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil)))
	defer slog.SetDefault(before)
	f()
	return strings.Split(strings.TrimSpace(text.String()), "\n")
}

func TestOnErrorGetsTheContextAndTheError(t *testing.T) {
	type key struct{}
	var got error
	var value any
	r := report.New("ratelimit", func(ctx context.Context, err error) { got, value = err, ctx.Value(key{}) })
	lines := logged(t, func() { r.Error(context.WithValue(t.Context(), key{}, "v"), errStore) })
	if !errors.Is(got, errStore) || value != "v" || lines[0] != "" {
		t.Errorf("got %v with %v, and logged %q", got, value, lines)
	}
}

func TestTheValueOfAPanicIsNotLogged(t *testing.T) {
	err := guard.Run(func() error { panic("secret") })
	lines := logged(t, func() { report.New("ratelimit", nil).Error(t.Context(), err) })
	if !strings.Contains(lines[0], "panic=string") || !strings.Contains(lines[0], "report_test.go") || strings.Contains(lines[0], "secret") {
		t.Errorf("logged %q, want the type and the stack alone", lines)
	}
}

func TestAPanicOfOnErrorIsLogged(t *testing.T) {
	r := report.New("ratelimit", func(context.Context, error) { panic("oops") })
	lines := logged(t, func() { r.Error(t.Context(), errStore) })
	if len(lines) != 1 || !strings.Contains(lines[0], "panic=string") || !strings.Contains(lines[0], errStore.Error()) {
		t.Errorf("logged %q", lines)
	}
}

func TestWithoutOnErrorAFloodIsOneLineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := report.New("ratelimit", nil)
		lines := logged(t, func() {
			for range 100 {
				r.Error(t.Context(), errStore)
			}
			time.Sleep(time.Second)
			r.Error(t.Context(), errStore)
		})
		if len(lines) != 2 || !strings.Contains(lines[0], `msg="ratelimit: failure"`) ||
			!strings.Contains(lines[1], "suppressed=99") {
			t.Errorf("logged %q", lines)
		}
	})
}

func TestAFloodOfPanicsOfOnErrorIsOneLineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := report.New("ratelimit", func(context.Context, error) { panic("oops") })
		lines := logged(t, func() {
			for range 100 {
				r.Error(t.Context(), errStore)
			}
			time.Sleep(time.Second)
			r.Error(t.Context(), errStore)
		})
		if len(lines) != 2 || !strings.Contains(lines[1], "suppressed=99") {
			t.Errorf("logged %d lines, the last is %q", len(lines), lines[len(lines)-1])
		}
	})
}

func TestTheValueOfAPanicIsNotLoggedIfOnErrorPanicsToo(t *testing.T) {
	r := report.New("ratelimit", func(context.Context, error) { panic("hidden") })
	err := guard.Run(func() error { panic("secret") })
	lines := logged(t, func() { r.Error(t.Context(), errors.Join(errStore, err)) })
	if text := strings.Join(lines, "\n"); strings.Contains(text, "secret") || strings.Contains(text, "hidden") ||
		!strings.Contains(text, "OnError panicked") {
		t.Errorf("logged %q, want no value of a panic", lines)
	}
}
