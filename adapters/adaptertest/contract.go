package adaptertest

import (
	"net/http"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/contract"
)

// TestContracts runs the wire contracts of five documented APIs on router, and the
// corpus of hostile input: decisions and bytes are those of net/http, over HTTP/1.1
// and HTTP/2.
func TestContracts(t *testing.T, router Router) {
	mount := func(tb testing.TB, app contract.App) http.Handler {
		neutral := App{
			Use:              steps(app.Middlewares),
			PathValues:       true,
			NotFound:         app.NotFound,
			MethodNotAllowed: app.MethodNotAllowed,
		}
		for _, r := range app.Routes {
			neutral.Routes = append(neutral.Routes, Route{
				Method: r.Method, Pattern: r.Pattern, Use: steps(r.Middlewares), Handler: r.Handler,
			})
		}
		return router.Handler(tb, neutral)
	}
	t.Run("services", func(t *testing.T) { contract.TestServices(t, mount) })
	t.Run("hostile", func(t *testing.T) { contract.TestHostile(t, mount) })
}

func steps(middlewares []usher.Middleware) []Step {
	steps := make([]Step, len(middlewares))
	for i, m := range middlewares {
		steps[i] = Step{Usher: m}
	}
	return steps
}
