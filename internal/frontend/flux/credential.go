package flux

import "net/url"

// What identifies with which credential a kind's requests ask their server. Two requests
// without any have the same one. A proxy is no part of it: it is not the server that is asked.

func (gitRepositories) credential(request GitRequest) string {
	return contentOf(userInfo(request.URL), request.Auth, request.Login)
}

func (ociRepositories) credential(request OCIRequest) string {
	return contentOf(userInfo(request.URL), request.Auth, request.Login, request.TLS)
}

func (buckets) credential(request BucketRequest) string {
	return contentOf(request.Provider, request.Secret, request.Login, request.STS, request.TLS)
}

func (helmRepositories) credential(request HelmRepositoryRequest) string {
	return contentOf(userInfo(request.URL), request.Auth, request.Login, request.TLS)
}

func (h helmCharts) credential(request HelmChartRequest) string {
	if request.Repository == nil {
		return ""
	}
	return h.repositories.credential(*request.Repository)
}

// userInfo is the credential within a URL.
func userInfo(text string) string {
	if u, err := url.Parse(text); err == nil && u.User != nil {
		return u.User.String()
	}
	return ""
}
