"use strict";
// The document lies beside the page, whatever prefix a proxy or a version puts before both.
SwaggerUIBundle({
  url: location.pathname.replace(/(\/v1)?\/docs\/?$/, "/openapi.json"),
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
});
