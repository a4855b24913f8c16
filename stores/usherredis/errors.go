package usherredis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher"
)

var errClosed = fmt.Errorf("usherredis: %w", usher.ErrClosed)

// kinds has the codes with which Redis and the scripts begin an error. A code that is not
// listed means a fault of a program: no retry helps.
var kinds = map[string]error{
	// The server, or the part of it that has the keys, accepts no call now.
	"BUSY":        usher.ErrUnavailable,
	"CLUSTERDOWN": usher.ErrUnavailable,
	"LOADING":     usher.ErrUnavailable,
	"MASTERDOWN":  usher.ErrUnavailable,
	"MISCONF":     usher.ErrUnavailable,
	"NOREPLICAS":  usher.ErrUnavailable,
	"READONLY":    usher.ErrUnavailable,
	"TRYAGAIN":    usher.ErrUnavailable,
	"UNBLOCKED":   usher.ErrUnavailable,
	// The server is not the configured one, or accepts other credentials.
	"ASK":       usher.ErrUnavailable,
	"DENIED":    usher.ErrUnavailable,
	"MOVED":     usher.ErrUnavailable,
	"NOAUTH":    usher.ErrUnavailable,
	"NOPERM":    usher.ErrUnavailable,
	"WRONGPASS": usher.ErrUnavailable,

	"OOM": usher.ErrFull,

	"CORRUPT":   usher.ErrCorrupt,
	"WRONGTYPE": usher.ErrCorrupt,
}

// A replyError is an error that the server has returned.
type replyError struct {
	code, rest string
	kind       error
}

func (e *replyError) Error() string { return "usherredis: the server replies " + e.code + " " + e.rest }

func (e *replyError) Unwrap() error { return e.kind }

// failure returns err as an error of package usher, without the password.
func (l *link) failure(ctx context.Context, err error) error {
	reply, ok := rueidis.IsRedisErr(err)
	switch {
	case errors.Is(err, usher.ErrClosed):
		return err
	case ok:
		return l.replied(reply.Error())
	case ctx.Err() != nil:
		return fmt.Errorf("usherredis: the server has not responded in time: %w: %w", usher.ErrUnavailable, context.Cause(ctx))
	case errors.Is(err, rueidis.ErrClosing):
		return fmt.Errorf("usherredis: the client is closed: %w", usher.ErrUnavailable)
	default:
		return fmt.Errorf("usherredis: no connection to the server: %w: %s", usher.ErrUnavailable, l.redact(err.Error()))
	}
}

// general are the beginnings of errors without a code of their own that mean that the server
// accepts no call at present, or none of this user.
var general = []string{"max number of clients reached", "The user executing the script"}

// replied returns the error for an error reply.
func (l *link) replied(text string) error {
	code, rest, _ := strings.Cut(text, " ")
	// The client has removed the code ERR.
	if strings.ToUpper(code) != code {
		code, rest = "ERR", text
	}
	kind := kinds[code]
	if slices.ContainsFunc(general, func(begin string) bool { return strings.HasPrefix(rest, begin) }) {
		kind = usher.ErrUnavailable
	}
	// A server that is not Redis, or is too old, may repeat the arguments of a command:
	// they have the password.
	rest, _, _ = strings.Cut(rest, ", with args beginning with")
	// The rest names the line of the script, and means nothing to an operator.
	rest, _, _ = strings.Cut(rest, " script: ")
	return &replyError{code, l.redact(rest), kind}
}

// redact removes the password from a text.
func (l *link) redact(text string) string {
	if l.secret != "" {
		text = strings.ReplaceAll(text, l.secret, "***")
	}
	return text
}

// replyCode returns the code of an error that the server has returned, or "".
func replyCode(err error) string {
	if e, ok := errors.AsType[*replyError](err); ok {
		return e.code
	}
	return ""
}

// replyNumber returns the number after the code, or 0.
func replyNumber(err error) (n int) {
	if e, ok := errors.AsType[*replyError](err); ok {
		n, _ = strconv.Atoi(e.rest)
	}
	return n
}

// corrupt returns the error for data that cannot be read.
func corrupt(what string) error { return fmt.Errorf("usherredis: %s: %w", what, usher.ErrCorrupt) }

// unexpected returns the error for a reply that no script sends.
func unexpected() error { return corrupt("the reply to a script") }
