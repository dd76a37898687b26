package sops

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"sigs.k8s.io/yaml"
)

var errNotYAML = errors.New("it is no valid YAML with credentials")

// readAWS reads static credentials.
func readAWS(value []byte) (aws.CredentialsProvider, error) {
	var c struct {
		ID     string `json:"aws_access_key_id"`
		Secret string `json:"aws_secret_access_key"`
		Token  string `json:"aws_session_token"`
	}
	if yaml.Unmarshal(value, &c) != nil {
		return nil, errNotYAML
	}
	if c.ID == "" || c.Secret == "" {
		return nil, errors.New("it needs aws_access_key_id and aws_secret_access_key")
	}
	return credentials.NewStaticCredentialsProvider(c.ID, c.Secret, c.Token), nil
}

// azureAccount is an entry with credentials for Azure. Its second form is what the az
// command prints for a service principal.
type azureAccount struct {
	TenantID            string `json:"tenantId"`
	ClientID            string `json:"clientId"`
	ClientSecret        string `json:"clientSecret"`
	Certificate         string `json:"clientCertificate"`
	CertificatePassword string `json:"clientCertificatePassword"`
	SendChain           bool   `json:"clientCertificateSendChain"`
	AuthorityHost       string `json:"authorityHost"`

	Tenant   string `json:"tenant"`
	AppID    string `json:"appId"`
	Password string `json:"password"`
}

// readAzure reads the credentials of a service principal, or the name of a managed
// identity.
func readAzure(value []byte, client *http.Client) (azcore.TokenCredential, error) {
	var a azureAccount
	if yaml.Unmarshal(value, &a) != nil {
		return nil, errNotYAML
	}
	if a.TenantID == "" && a.ClientID == "" {
		a.TenantID, a.ClientID, a.ClientSecret = a.Tenant, a.AppID, a.Password
	}
	options := azcore.ClientOptions{Cloud: cloud.AzurePublic}
	if a.AuthorityHost != "" {
		options.Cloud.ActiveDirectoryAuthorityHost = a.AuthorityHost
	}
	if client != nil {
		options.Transport = client
	}
	var credential azcore.TokenCredential
	var err error
	switch {
	case a.ClientID == "":
		err = errors.New("no client")
	case a.TenantID != "" && a.ClientSecret != "":
		credential, err = azidentity.NewClientSecretCredential(a.TenantID, a.ClientID, a.ClientSecret, &azidentity.ClientSecretCredentialOptions{ClientOptions: options})
	case a.TenantID != "" && a.Certificate != "":
		credential, err = a.withCertificate(options)
	default:
		// A client alone would stand for the identity of the machine, which is the
		// operator's and not that of whoever wrote the Secret.
		err = errors.New("no secret")
	}
	if err != nil {
		// The error may quote what it was given.
		return nil, errors.New("it needs tenantId and clientId with clientSecret or clientCertificate; or tenant, appId and password")
	}
	return credential, nil
}

func (a azureAccount) withCertificate(options azcore.ClientOptions) (azcore.TokenCredential, error) {
	certificates, key, err := azidentity.ParseCertificates([]byte(a.Certificate), []byte(a.CertificatePassword))
	if err != nil {
		return nil, err
	}
	return azidentity.NewClientCertificateCredential(a.TenantID, a.ClientID, certificates, key,
		&azidentity.ClientCertificateCredentialOptions{ClientOptions: options, SendCertificateChain: a.SendChain})
}

// azureOptions lets a client of Key Vault use an HTTP client.
func azureOptions(client *http.Client) *azkeys.ClientOptions {
	return &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: client}}
}

// readGCP reads the JSON of an account. Other types than these take a token from a
// file, a program or an address of this machine, which are the operator's own and not
// for whoever writes the Secret.
func readGCP(value []byte) ([]byte, error) {
	var account struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(value, &account) != nil {
		return nil, errors.New("it is no valid JSON with credentials")
	}
	switch account.Type {
	case "service_account", "authorized_user":
		return value, nil
	case "external_account", "external_account_authorized_user", "impersonated_service_account", "gdch_service_account":
		return nil, fmt.Errorf("credentials of type %q are refused: use those of a service_account or authorized_user", account.Type)
	default:
		// What stands there instead may be anything of the Secret.
		return nil, errors.New("credentials of an unknown type are refused: use those of a service_account or authorized_user")
	}
}

// withoutUser is an address without user and password.
func withoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "an address that is none"
	}
	return u.Scheme + "://" + u.Host
}
