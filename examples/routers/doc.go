// Package routers gives what is outside of gorilla/mux, httprouter and bunrouter the
// pattern of the route, by usher.PatternFunc. Limits by route and idempotency need it
// there, and so do the logs and spans of refusals, which never reach the router:
//
//	router := mux.NewRouter()
//	router.HandleFunc("/orders/{id}", getOrder).Methods(http.MethodGet)
//	h := usher.Chain(routers.Gorilla(router), env, usher.Authenticate(keys), limits, once).Wrap(router)
//
// It is made to be copied.
package routers
