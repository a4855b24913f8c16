package ushergin

import (
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// FromGin returns the principal of the request, and whether there is one. It works
// on c whether or not gin.Engine.ContextWithFallback is set;
// [usher.PrincipalFrom] with c as the context works only if it is.
func FromGin(c *gin.Context) (usher.Principal, bool) {
	return usher.PrincipalFrom(c.Request.Context())
}

// PathValues is a gin middleware that makes the parameters of the path known to
// [http.Request.PathValue], for what follows: middlewares and handlers of net/http
// that read them. It costs two allocations.
func PathValues(c *gin.Context) {
	for _, p := range c.Params {
		c.Request.SetPathValue(p.Key, p.Value)
	}
}

var (
	errNotFound         = &usher.Error{Status: http.StatusNotFound, Code: envelope.CodeNotFound}
	errMethodNotAllowed = &usher.Error{Status: http.StatusMethodNotAllowed, Code: envelope.CodeMethodNotAllowed}
)

// NoRoute answers 404 by [usher.Fail], for gin.Engine.NoRoute. Gin's own answer
// is written after the whole chain, where middlewares see its status only.
func NoRoute(c *gin.Context) { usher.Fail(c.Writer, c.Request, errNotFound) }

// NoMethod answers 405 by [usher.Fail], for gin.Engine.NoMethod. Gin asks for it
// only if Engine.HandleMethodNotAllowed is set, and has then set Allow.
func NoMethod(c *gin.Context) { usher.Fail(c.Writer, c.Request, errMethodNotAllowed) }

// Errors is a gin middleware that answers a request whose handler has left an error
// in c.Errors and has not written, with the last of them by [usher.Fail]. A
// [*usher.Error] says what the client is told. Another error is private: its
// answer is the status that the handler has set, if that is one of an error, else
// 500.
//
// It stands inside every middleware that must see the answer.
func Errors(c *gin.Context) {
	c.Next()
	last := c.Errors.Last()
	if last == nil || c.Writer.Written() {
		return
	}
	err := last.Err
	if _, ok := errors.AsType[*usher.Error](err); !ok && c.Writer.Status() >= http.StatusBadRequest {
		err = &usher.Error{Status: c.Writer.Status(), Cause: err}
	}
	usher.Fail(c.Writer, c.Request, err)
}
