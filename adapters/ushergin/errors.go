package ushergin

import (
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
)

// NoRoute responds with [usher.NotFound], for gin.Engine.NoRoute. Gin writes its own 404
// after the whole chain, so middlewares would see only the status.
func NoRoute(c *gin.Context) { usher.NotFound(c.Writer, c.Request) }

// NoMethod responds with [usher.MethodNotAllowed], for gin.Engine.NoMethod. Gin calls it
// only if Engine.HandleMethodNotAllowed is set, and sets Allow first.
func NoMethod(c *gin.Context) { usher.MethodNotAllowed(c.Writer, c.Request) }

// Errors is a gin middleware that responds for a handler that has left errors in c.Errors
// and has written nothing. It passes the last error to [usher.Fail]. The client sees
//
//   - the public part of an [*usher.Error];
//   - 400 with the faulty fields of a request that could not be bound or is not valid:
//     for errors of the validator, for errors of encoding/json that the body of the
//     request explains, and for any error of gin.ErrorTypeBind. See [Validator] for the
//     names of fields;
//   - the text of an error of gin.ErrorTypePublic.
//
// Any other error is private. The status is the one that the handler has set, if that is
// the status of an error, else 400 for the last two and 500 for private errors.
//
// An error beside a response that has begun is only a note, as in gin. A handler that
// cannot finish its body passes the error to [usher.Fail] itself: then the envelope aborts
// the connection, and no client mistakes what was sent for the whole.
//
// Put Errors directly inside the envelope. Middlewares inside Errors still see the
// response: the innermost of those that have replaced the writer sees it before its next
// returns. So put a middleware that adds or changes errors after Context.Next inside
// those.
//
// Errors costs two allocations, for what it stores in c, and a copy of what is read of a
// request body, up to 1 MiB. The copy shows whether the client is at fault: other errors
// of encoding/json may be about the document of another server, and then the request may
// have had an effect.
func Errors(c *gin.Context) {
	if renderingOf(c) != pending {
		c.Set(renderingKey{}, pending)
		defer copyBody(c)()
		defer func() {
			if renderingOf(c) == pending {
				c.Set(renderingKey{}, none)
			}
		}()
	}
	encoding := encodingOf(c)
	c.Next()
	respond(c, encoding)
}

// A rendering is the state of the response to an error in c.Errors.
type rendering uint8

const (
	none    rendering = iota // no Errors will respond with the error
	pending                  // an outer Errors will respond with it
	done                     // an Errors has responded with it
)

// renderingKey is the key of the rendering in a gin.Context.
type renderingKey struct{}

func renderingOf(c *gin.Context) rendering {
	v, _ := c.Get(renderingKey{})
	r, _ := v.(rendering)
	return r
}

// awaits reports whether an outer [Errors] has an error to respond with.
func awaits(c *gin.Context) bool {
	return len(c.Errors) > 0 && !c.Writer.Written() && renderingOf(c) == pending
}

// encodingOf returns the encoding that an outer compressor has announced.
func encodingOf(c *gin.Context) []string { return c.Writer.Header()["Content-Encoding"] }

// respond responds with the last error, unless there is a response. The encoding is that
// from before the rest of the chain: an inner compressor has ended, and what it has
// announced is not the encoding of this response.
func respond(c *gin.Context, encoding []string) {
	if len(c.Errors) == 0 || c.Writer.Written() || renderingOf(c) == done {
		return
	}
	// Outer writers are not Written if a middleware has passed on only the status.
	c.Set(renderingKey{}, done)
	if h := c.Writer.Header(); encoding == nil {
		delete(h, "Content-Encoding")
	} else {
		h["Content-Encoding"] = encoding
	}
	usher.Fail(c.Writer, c.Request, failure(c))
}

// failure returns the error to respond with.
func failure(c *gin.Context) error {
	last := c.Errors.Last()
	err, status := last.Err, c.Writer.Status()
	if _, ok := errors.AsType[*usher.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	e := invalid(c, last)
	if e == nil && status < http.StatusBadRequest {
		return err
	}
	if e == nil {
		e = &usher.Error{Cause: err}
	}
	if status >= http.StatusBadRequest {
		e.Status = status
	}
	return e
}
