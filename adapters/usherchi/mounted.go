package usherchi

import (
	"runtime"
	"strings"
	"sync"
	"weak"

	"github.com/go-chi/chi/v5"
)

// A mounted router receives requests for its root through a route of its parent that has
// every method, and chi.Routes.Find does not look inside that route.

// atRoot returns the pattern for the root of the mounted router that scratch has found,
// if any, and whether the search ends there. The pattern is empty if the root has routes,
// but none for method.
func atRoot(scratch, rctx *chi.Context, method string) (pattern string, found bool) {
	router := mountedAt(rctx.Routes, scratch.RoutePatterns)
	if router == nil {
		return "", false
	}
	if router.Find(scratch, method, "/") != "" {
		return scratch.RoutePattern(), true
	}
	for _, m := range methods {
		scratch.Reset()
		if router.Find(scratch, m, "/") != "" {
			return "", true
		}
	}
	return "", false // the parent may have a route there that was added later
}

// mountedAt returns the router whose root a request reaches by patterns, or nil.
func mountedAt(routes chi.Routes, patterns []string) *chi.Mux {
	router, _ := routes.(*chi.Mux)
	for i, p := range patterns {
		if last := i == len(patterns)-1; router == nil || last && strings.HasSuffix(p, "/*") {
			return nil
		}
		router = mountsOf(router)[p].Value()
	}
	return router
}

// mounts are the routers that are mounted in one router, by the patterns that lead to
// each: "/items" and "/items/" to its root, and "/items/*" to the rest.
type mounts map[string]weak.Pointer[chi.Mux]

// mounted has the mounts of each router. A router does not change once it serves
// requests.
var mounted sync.Map // from weak.Pointer[chi.Mux] to mounts

func mountsOf(router *chi.Mux) mounts {
	key := weak.Make(router)
	if m, ok := mounted.Load(key); ok {
		return m.(mounts) //nolint:forcetypeassert // nothing else is stored
	}
	m, routes := make(mounts), router.Routes()
	for _, r := range routes {
		prefix, ok := strings.CutSuffix(r.Pattern, "/*")
		if sub, isMux := r.SubRoutes.(*chi.Mux); ok && isMux {
			to := weak.Make(sub)
			m[prefix], m[prefix+"/"], m[r.Pattern] = to, to, to
		}
	}
	// Chi lists a route for the root only if that does not come from the mount.
	for _, r := range routes {
		if !strings.HasSuffix(r.Pattern, "/*") {
			delete(m, r.Pattern)
		}
	}
	delete(m, "/") // Mount("/", sub) has only "/*"
	if _, ok := mounted.LoadOrStore(key, m); !ok {
		runtime.AddCleanup(router, func(key weak.Pointer[chi.Mux]) { mounted.Delete(key) }, key)
	}
	return m
}
