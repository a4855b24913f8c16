package report

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"
)

// A clock that is set back by an hour does not silence the log for an hour.
func TestAClockThatIsSetBackDoesNotSilenceTheLog(t *testing.T) {
	var text bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil)))
	defer slog.SetDefault(before)
	r := New("ratelimit", nil)
	r.next.Store(time.Now().Add(time.Hour).UnixNano()) // as the clock was
	r.Error(context.Background(), errors.New("down"))
	if text.Len() == 0 {
		t.Error("nothing is logged")
	}
}
