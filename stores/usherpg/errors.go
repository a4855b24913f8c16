package usherpg

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/usher-go/usher"
)

// A failure is an error of a store. Errors of pgx may contain the DSN, and with it the
// password, so only the errors of the server and of contexts are passed on.
type failure struct {
	text  string
	kind  error // of package usher
	cause error // a serverError, the error of a context, or nil
}

func (f *failure) Error() string { return "usherpg: " + f.text }

// Unwrap leads [errors.Is] to the error of package usher, and [errors.As] to the
// *pgconn.PgError with its SQLSTATE.
func (f *failure) Unwrap() []error {
	if f.cause == nil {
		return []error{f.kind}
	}
	return []error{f.kind, f.cause}
}

// A serverError is an error that the server has sent. The drivers of database/sql have
// types of their own for it.
type serverError interface {
	error
	SQLState() string
}

// failed returns the error of a call that has failed with err.
func failed(what string, err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if e, ok := errors.AsType[serverError](err); ok {
		code, text := e.SQLState(), e.Error()
		if pg, ok := e.(*pgconn.PgError); ok {
			text = pg.Message
		}
		switch code {
		case codeCorrupt, codeClocks, codeCaller: // of our functions, for operators
		case "42P05", "26000", "08P01":
			text += " (SQLSTATE " + code + ")" + hintPooler
		default:
			text += " (SQLSTATE " + code + ")"
		}
		return &failure{text: what + ": " + text, kind: kindOf(code), cause: e}
	}
	if _, ok := errors.AsType[pgx.ScanArgError](err); ok {
		return &failure{text: what + ": the reply of PostgreSQL cannot be read", kind: usher.ErrCorrupt}
	}
	f := &failure{text: what + ": " + reason(err), kind: usher.ErrUnavailable}
	for _, ended := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, ended) {
			f.cause = ended
		}
	}
	return f
}

const hintPooler = "; behind PgBouncer, set DefaultQueryExecMode of the pool to QueryExecModeCacheDescribe"

// reason returns why a call has had no response, and what to check. It contains no part of
// a DSN.
func reason(err error) string {
	op, ok := errors.AsType[*net.OpError](err)
	_, unknown := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "PostgreSQL has not responded in time, or no connection of the pool was free: check the server, the network and MaxConns of the pool"
	case errors.Is(err, context.Canceled):
		return "the call was canceled"
	case errors.Is(err, pgx.ErrTxClosed), errors.Is(err, sql.ErrTxDone):
		return "the transaction has ended already: after Execution.Commit, a handler must not end it itself, as by a deferred Rollback"
	case unknown:
		return "the host of PostgreSQL is unknown: check the address of the pool"
	case ok && op.Err != nil:
		return "PostgreSQL cannot be reached (" + op.Err.Error() + "): check that it is running, and the address of the pool"
	default:
		return "the connection to PostgreSQL has failed: check that it is running, and the configuration of the pool"
	}
}

// The SQLSTATEs that the functions of usher raise.
const (
	codeCorrupt = "UC001" // stored data cannot be read
	codeClocks  = "UC002" // the clocks of the process and the server differ too much
	codeCaller  = "UC003" // the caller has broken the contract
)

// kindOf returns the error of package usher for a SQLSTATE.
func kindOf(code string) error {
	switch code {
	case codeCorrupt, "XX001", "XX002":
		return usher.ErrCorrupt
	case "42P01", "42883", "42703", "42704", "3F000", "42501":
		// A table, function, column, type or schema is missing, or may not be used.
		return usher.ErrSchema
	case "53300": // too many connections
		return usher.ErrUnavailable
	}
	switch {
	case strings.HasPrefix(code, "53"): // no room: disk, memory, a configured limit
		return usher.ErrFull
	case strings.HasPrefix(code, "22"):
		// All arguments are checked before a call, so a value that was stored is wrong.
		return usher.ErrCorrupt
	default:
		return usher.ErrUnavailable
	}
}
